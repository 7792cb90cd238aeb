{{- define "tidemark.operator.args" -}}
{{- $v := .Values -}}
- operator
- --leader-elect
{{- with $v.operator.leaderElectionID }}
- --leader-election-id={{ . }}
{{- end }}
- --disable-compression={{ $v.operator.disableCompression }}
{{ include "tidemark.logArgs" $v.logging.operator }}
- --cert-dir={{ $v.certificates.mountPath }}
- --enable-cert-rotation={{ include "tidemark.rotation" . | default "false" }}
- --cert-secret-name={{ $v.certificates.secretName }}
- --operator-service-name={{ include "tidemark.operator" . }}
- --metrics-server-service-name={{ include "tidemark.metricsServer" . }}
- --webhooks-service-name={{ include "tidemark.webhooks" . }}
- --validating-webhook-name={{ include "tidemark.webhookConfiguration" . }}
- --enable-webhook-patching={{ $v.webhooks.enabled }}
- --enable-apiservice-patching={{ include "tidemark.patchesApiServices" . | default "false" }}
- --metrics-service-bind-address=:{{ $v.operator.metricsServiceTargetPort }}
- --k8s-cluster-name={{ $v.clusterName }}
- --k8s-cluster-domain={{ $v.clusterDomain }}
- --http-max-idle-conns={{ $v.http.maxIdleConns }}
- --http-max-idle-conns-per-host={{ $v.http.maxIdleConnsPerHost }}
- --http-idle-conn-timeout={{ $v.http.idleConnTimeout }}
{{- range $v.certificates.operator.caDirs }}
- --ca-dir={{ . }}
{{- end }}
{{- if $v.prometheus.operator.enabled }}
- --enable-prometheus-metrics=true
- --metrics-bind-address=:{{ $v.prometheus.operator.port }}
{{- end }}
{{- if $v.opentelemetry.operator.enabled }}
- --enable-opentelemetry-metrics=true
{{- end }}
{{- with include "tidemark.reasonsPort" . }}
- --reasons-bind-address=:{{ . }}
{{- end }}
{{- include "tidemark.extraArgs" ($v.extraArgs).keda }}
{{- end -}}

{{- define "tidemark.operator.env" -}}
{{- $v := .Values -}}
{{ include "tidemark.serviceTls" . }}
{{ include "tidemark.watched" . }}
- {name: KEDA_HTTP_DEFAULT_TIMEOUT, value: {{ $v.http.timeout | int64 | quote }}}
- {name: KEDA_HTTP_MIN_TLS_VERSION, value: {{ $v.http.minTlsVersion | quote }}}
{{- with $v.http.tlsCipherList }}
- {name: KEDA_HTTP_TLS_CIPHER_LIST, value: {{ . | quote }}}
{{- end }}
{{- if not $v.http.keepAlive.enabled }}
- {name: KEDA_HTTP_DISABLE_KEEP_ALIVE, value: "true"}
{{- end }}
{{- if $v.permissions.operator.restrict.secret }}
- {name: KEDA_RESTRICT_SECRET_ACCESS, value: "true"}
{{- end }}
{{- with $v.opentelemetry.collector.uri }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- /* The environment that says what is watched. */ -}}
{{- define "tidemark.watched" -}}
- {name: WATCH_NAMESPACE, value: {{ .Values.watchNamespace | default "" | quote }}}
- {name: WATCH_LABEL_SELECTOR, value: {{ .Values.watchLabelSelector | default "" | quote }}}
- {name: WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH, value: {{ .Values.watchLabelSelectorForTriggerauth | default "" | quote }}}
{{- end -}}

{{- define "tidemark.metricsServer.args" -}}
{{- $v := .Values -}}
{{- $certs := $v.certificates.mountPath -}}
{{- $log := $v.logging.metricServer -}}
- metrics-server
- --port={{ $v.prometheus.metricServer.port }}
- --secure-port={{ $v.service.portHttpsTarget }}
- --disable-compression={{ $v.metricsServer.disableCompression }}
- --metrics-service-address={{ include "tidemark.operator" . }}.{{ .Release.Namespace }}.svc.{{ $v.clusterDomain }}:{{ $v.operator.metricsServiceTargetPort }}
- --tls-cert-file={{ $certs }}/tls.crt
- --tls-private-key-file={{ $certs }}/tls.key
- --cert-dir={{ $certs }}
{{- $level := gt (int $log.level) 0 | ternary $log.level $log.zapLevel }}
{{ include "tidemark.logArgs" (dict "level" $level "format" $log.zapEncoder "timeEncoding" $log.zapTimeEncoding) }}
{{- include "tidemark.extraArgs" ($v.extraArgs).metricsAdapter }}
{{- end -}}

{{- define "tidemark.webhooks.args" -}}
{{- $v := .Values -}}
- webhooks
- --port={{ $v.webhooks.port | default 9443 }}
- --health-probe-bind-address=:{{ $v.webhooks.healthProbePort }}
- --cert-dir={{ $v.certificates.mountPath }}
{{ include "tidemark.logArgs" $v.logging.webhooks }}
{{- if $v.prometheus.webhooks.enabled }}
- --metrics-bind-address=:{{ $v.prometheus.webhooks.port }}
{{- end }}
{{- include "tidemark.extraArgs" ($v.extraArgs).webhooks }}
{{- end -}}

{{- define "tidemark.logArgs" -}}
- --zap-log-level={{ .level }}
- --zap-encoder={{ .format }}
- --zap-time-encoding={{ .timeEncoding }}
{{- end -}}

{{- define "tidemark.extraArgs" -}}
{{- range $key, $value := . }}
- {{ printf "--%s=%v" $key $value | quote }}
{{- end }}
{{- end -}}

{{- define "tidemark.serviceTls" -}}
- {name: KEDA_SERVICE_MIN_TLS_VERSION, value: {{ .Values.service.minTlsVersion | quote }}}
{{- with .Values.service.tlsCipherList }}
- {name: KEDA_SERVICE_TLS_CIPHER_LIST, value: {{ . | quote }}}
{{- end }}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}
