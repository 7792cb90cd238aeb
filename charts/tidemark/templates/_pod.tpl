{{- /* What KEDA's chart calls each process in each part of the values. */ -}}
{{- define "tidemark.keys" -}}
operator: {account: operator, values: operator, image: keda, pod: keda, volumes: keda, settings: operator, strategy: operator, spread: operator, prometheus: operator}
metrics-server: {account: metricServer, values: metricsServer, image: metricsApiServer, pod: metricsAdapter, volumes: metricsApiServer, settings: metricServer, strategy: metricsApiServer, spread: metricsServer, prometheus: metricServer}
webhooks: {account: webhooks, values: webhooks, image: webhooks, pod: webhooks, volumes: webhooks, settings: webhooks, strategy: webhooks, spread: webhooks, prometheus: webhooks}
{{- end -}}

{{- /* A Deployment: (dict "root" $ "process" PROCESS "args" LIST "env" LIST "ports" LIST "probe" DICT), and maybe "labels" and "nodeSelector" of its pods, "volumes" and "mounts". */ -}}
{{- define "tidemark.deployment" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $keys := get (include "tidemark.keys" $root | fromYaml) .process -}}
{{- $name := include (printf "tidemark.%s" (ternary "metricsServer" .process (eq .process "metrics-server"))) $root -}}
{{- $values := get $v $keys.values -}}
{{- $own := dict "app" $name "name" $name "app.kubernetes.io/name" $name "tidemark.dev/component" .process -}}
{{- $podLabels := merge (dict) $own (.labels | default dict) (include "tidemark.labels" $root | fromYaml) (get ($v.podLabels | default dict) $keys.pod | default dict) -}}
{{- $podAnnotations := merge (dict) (get ($v.podAnnotations | default dict) $keys.pod | default dict) (include "tidemark.scraping" (dict "root" $root "key" $keys.prometheus) | fromYaml) ($v.additionalAnnotations | default dict) -}}
{{- $volumes := get ($v.volumes | default dict) $keys.volumes | default dict -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tidemark.metadata" (dict "root" $root "name" $name "namespace" $root.Release.Namespace "app" $name "labels" $own) | nindent 2 }}
spec:
  replicas: {{ $values.replicaCount }}
  revisionHistoryLimit: {{ $values.revisionHistoryLimit }}
  {{- with get ($v.upgradeStrategy | default dict) $keys.strategy }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    matchLabels:
      app: {{ $name }}
  template:
    metadata:
      labels:
        {{- toYaml $podLabels | nindent 8 }}
      {{- with $podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include (printf "tidemark.account.%s" $keys.account) $root }}
      automountServiceAccountToken: true
      {{- include "tidemark.place" (dict "root" $root "values" $values "settings" $keys.settings "nodeSelector" .nodeSelector) | nindent 6 }}
      {{- with get ($v.topologySpreadConstraints | default dict) $keys.spread }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.extraInitContainers }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ $name }}
          {{- include "tidemark.container" (dict "root" $root "image" $keys.image "settings" $keys.settings) | nindent 10 }}
          args:
            {{- toYaml .args | nindent 12 }}
          env:
            {{- toYaml (concat .env ($values.env | default list) ($v.env | default list)) | nindent 12 }}
          ports:
            {{- toYaml .ports | nindent 12 }}
          livenessProbe:
            httpGet: {{ toJson (merge (dict "path" "/healthz") .probe) }}
            {{- toYaml $values.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet: {{ toJson (merge (dict "path" "/readyz") .probe) }}
            {{- toYaml $values.readinessProbe | nindent 12 }}
          {{- with get ($v.resources | default dict) $keys.settings }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - {name: certificates, mountPath: {{ $v.certificates.mountPath | quote }}, readOnly: true}
            {{- with concat (.mounts | default list) ($volumes.extraVolumeMounts | default list) }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
        - name: certificates
          secret:
            secretName: {{ $v.certificates.secretName }}
            defaultMode: 420
            # Only the operator starts without them, to make them.
            optional: {{ and (eq .process "operator") (eq (include "tidemark.rotation" $root) "true") }}
        {{- with concat (.volumes | default list) ($volumes.extraVolumes | default list) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}

{{- /* Where and how a pod runs: (dict "root" $ "values" VALUES "settings" KEY "nodeSelector" DICT). */ -}}
{{- define "tidemark.place" -}}
{{- $v := .root.Values -}}
{{- $policy := .values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "ClusterFirst" (.values.useHostNetwork | default false)) -}}
enableServiceLinks: {{ $v.enableServiceLinks }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with get ($v.podSecurityContext | default dict) .settings }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
dnsPolicy: {{ $policy }}
{{- with .values.dnsConfig | default $v.global.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
hostNetwork: {{ .values.useHostNetwork | default false }}
{{- if not (kindIs "invalid" .values.hostUsers) }}
hostUsers: {{ .values.hostUsers }}
{{- end }}
nodeSelector:
  {{- toYaml (merge (dict) (.nodeSelector | default dict) (.values.nodeSelector | default $v.nodeSelector | default dict) (dict "kubernetes.io/os" "linux")) | nindent 2 }}
{{- with .values.affinity | default $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations | default $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The image of a container and its rights: (dict "root" $ "image" KEY "settings" KEY). */ -}}
{{- define "tidemark.container" -}}
image: {{ include "tidemark.image" (dict "root" .root "image" (get .root.Values.image .image)) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with get (.root.Values.securityContext | default dict) .settings }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The annotations by which a Prometheus without monitors finds a pod, as YAML: (dict "root" $ "key" KEY). */ -}}
{{- define "tidemark.scraping" -}}
{{- $values := get .root.Values.prometheus .key -}}
{{- $monitored := or (dig "serviceMonitor" "enabled" false $values) (dig "podMonitor" "enabled" false $values) -}}
{{- if and $values.enabled (not $monitored) -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ $values.port | quote }}
prometheus.io/path: /metrics
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{- /* The port of a Service where Prometheus reads, as a YAML list: (dict "root" $ "key" KEY). */ -}}
{{- define "tidemark.metricsPort" -}}
{{- $values := get .root.Values.prometheus .key -}}
{{- if $values.enabled -}}
{{- $port := dict "name" ($values.portName | default "metrics") "port" (int $values.port) "targetPort" (int $values.port) "protocol" "TCP" -}}
{{- with $values.appProtocol -}}{{- $_ := set $port "appProtocol" . -}}{{- end -}}
{{- toYaml (list $port) -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}
