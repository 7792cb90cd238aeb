{{- /* The rules of a role, from the list in files/rbac.yaml: (dict "root" $ "process" P "scope" S), as a YAML list. */ -}}
{{- define "tidemark.rules" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $restrict := $v.permissions.operator.restrict -}}
{{- $names := dict "certificates" $v.certificates.secretName "apiService" "v1beta1.external.metrics.k8s.io" "webhookConfiguration" (include "tidemark.webhookConfiguration" $root) "kedasLease" "operator.keda.sh" -}}
{{- $kinds := $v.rbac.scaledRefKinds | default (list (dict "apiGroup" "*" "kind" "*")) -}}
{{- $rules := list -}}
{{- $scope := .scope -}}
{{- range $grant := index ($root.Files.Get "files/rbac.yaml" | fromYaml) .process -}}
{{- if eq $grant.scope $scope -}}
{{- $rule := pick $grant "apiGroups" "resources" "verbs" -}}
{{- with $grant.named -}}{{- $_ := set $rule "resourceNames" (list (index $names .)) -}}{{- end -}}
{{- if eq $grant.when "always" -}}
{{- $rules = append $rules $rule -}}
{{- else if and (eq $grant.when "rotation") (include "tidemark.rotation" $root) -}}
{{- $rules = append $rules $rule -}}
{{- else if and (eq $grant.when "secretsEverywhere") (not $restrict.secret) -}}
{{- with $restrict.namesAllowList -}}{{- $_ := set $rule "resourceNames" . -}}{{- end -}}
{{- $rules = append $rules $rule -}}
{{- else if and (eq $grant.when "anyTarget") $v.rbac.enabledCustomScaledRefKinds -}}
{{- $scale := hasSuffix "/scale" (first $grant.resources) -}}
{{- range $kind := $kinds -}}
{{- /* "Any kind" is also any Secret: not where Secrets are restricted. */ -}}
{{- $reads := and (eq $kind.kind "*") (has $kind.apiGroup (list "*" "")) (or $restrict.secret $restrict.namesAllowList) -}}
{{- if or $scale (not $reads) -}}
{{- $resource := ternary (printf "%s/scale" $kind.kind) $kind.kind $scale -}}
{{- $rules = append $rules (dict "apiGroups" (list $kind.apiGroup) "resources" (list $resource) "verbs" $grant.verbs) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{- /* A role and its binding: (dict "root" $ "kind" ClusterRole|Role "binding" KIND "name" N "bindingName" B "namespace" NS "account" A "app" APP "rules" YAML). */ -}}
{{- define "tidemark.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .binding }}
metadata:
  {{- include "tidemark.metadata" (dict "root" .root "name" .bindingName "namespace" .namespace "app" .app) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .accountNamespace | default .root.Release.Namespace }}
{{- end -}}

{{- define "tidemark.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  {{- include "tidemark.metadata" (dict "root" .root "name" .name "namespace" .namespace "app" .app) | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
{{- end -}}
