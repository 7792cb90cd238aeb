{{- /* What the Deployments have in common: (dict "root" $ "name" N "component" C "account" A "image" IMAGE "values" V "valueKey" K "podKey" P "volumeKey" V "strategyKey" S "spreadKey" S "args" LIST "env" LIST "ports" LIST "probe" DICT "optional" BOOL "host" BOOL). */ -}}
{{- define "tidemark.deployment" -}}
{{- $v := .root.Values -}}
{{- $podLabels := merge (dict "app" .name "name" .name "app.kubernetes.io/name" .name "tidemark.dev/component" .component) (include "tidemark.labels" .root | fromYaml) (index $v.podLabels .podKey | default dict) -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  {{- with $v.additionalAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  labels:
    app: {{ .name }}
    name: {{ .name }}
    app.kubernetes.io/name: {{ .name }}
    tidemark.dev/component: {{ .component }}
    {{- include "tidemark.labels" .root | nindent 4 }}
spec:
  replicas: {{ .values.replicaCount }}
  revisionHistoryLimit: {{ .values.revisionHistoryLimit }}
  {{- with index $v.upgradeStrategy .strategyKey }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    matchLabels:
      app: {{ .name }}
  template:
    metadata:
      labels:
        {{- toYaml $podLabels | nindent 8 }}
      {{- with merge (dict) (index $v.podAnnotations .podKey | default dict) $v.additionalAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ .account }}
      automountServiceAccountToken: true
      enableServiceLinks: {{ $v.enableServiceLinks }}
      {{- with $v.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- with $v.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with index $v.podSecurityContext .valueKey }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.dnsPolicy }}
      dnsPolicy: {{ . }}
      {{- end }}
      hostNetwork: {{ .host }}
      containers:
        - name: {{ .name }}
          image: {{ include "tidemark.image" (dict "root" .root "image" .image) | quote }}
          imagePullPolicy: {{ $v.image.pullPolicy }}
          args:
            {{- toYaml .args | nindent 12 }}
          env:
            {{- toYaml (concat .env $v.env) | nindent 12 }}
          ports:
            {{- toYaml .ports | nindent 12 }}
          livenessProbe:
            httpGet: {{ toJson (merge (dict "path" "/healthz") .probe) }}
            {{- toYaml .values.livenessProbe | nindent 12 }}
          readinessProbe:
            httpGet: {{ toJson (merge (dict "path" "/readyz") .probe) }}
            {{- toYaml .values.readinessProbe | nindent 12 }}
          {{- with index $v.securityContext .valueKey }}
          securityContext:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with index $v.resources .valueKey }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - name: certificates
              mountPath: {{ $v.certificates.mountPath }}
              readOnly: true
            {{- with (index $v.volumes .volumeKey).extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: certificates
          secret:
            secretName: {{ $v.certificates.secretName }}
            defaultMode: 420
            optional: {{ .optional }}
        {{- with (index $v.volumes .volumeKey).extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      nodeSelector:
        {{- toYaml (merge (dict "kubernetes.io/os" "linux") $v.nodeSelector) | nindent 8 }}
      {{- with .values.affinity | default $v.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with index $v.topologySpreadConstraints .spreadKey }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.hostAliases }}
      hostAliases:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- define "tidemark.logArgs" -}}
- --zap-log-level={{ .level }}
- --zap-encoder={{ .format }}
- --zap-time-encoding={{ .timeEncoding }}
{{- end -}}

{{- define "tidemark.extraArgs" -}}
{{- range $key, $value := . }}
- --{{ $key }}={{ $value }}
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
