{{- /* The rules of a role, from the list in files/rbac.yaml: (dict "root" $ "process" P "scope" S), as a YAML list. */ -}}
{{- define "tidemark.rules" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $restrict := $v.permissions.operator.restrict -}}
{{- $apis := list "v1beta1.external.metrics.k8s.io" -}}
{{- if include "tidemark.reasons" $root -}}{{- $apis = append $apis "v1alpha1.reasons.tidemark.dev" -}}{{- end -}}
{{- $names := dict "certificates" (list $v.certificates.secretName) "apiService" $apis "webhookConfiguration" (list (include "tidemark.webhookConfiguration" $root)) "kedasLease" (list "operator.keda.sh") -}}
{{- /* Who is not told of the CA, or not there. */ -}}
{{- $untold := dict "apiService" (not (include "tidemark.patchesApiServices" $root)) "webhookConfiguration" (not $v.webhooks.enabled) -}}
{{- $kinds := $v.rbac.scaledRefKinds | default (list (dict "apiGroup" "*" "kind" "*")) -}}
{{- $rules := list -}}
{{- $scope := .scope -}}
{{- range $grant := get ($root.Files.Get "files/rbac.yaml" | fromYaml) .process | default list -}}
{{- if and (eq $grant.scope $scope) (not (get $untold ($grant.named | default ""))) -}}
{{- $rule := pick $grant "apiGroups" "resources" "verbs" -}}
{{- with $grant.named -}}{{- $_ := set $rule "resourceNames" (get $names .) -}}{{- end -}}
{{- if eq $grant.when "always" -}}
{{- $rules = append $rules $rule -}}
{{- else if and (eq $grant.when "rotation") (include "tidemark.rotation" $root) -}}
{{- $rules = append $rules $rule -}}
{{- else if and (eq $grant.when "reasonsPort") (include "tidemark.reasonsPort" $root) -}}
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

{{- /* The right to request tokens of ServiceAccounts, of those named or of all. */ -}}
{{- define "tidemark.tokenRules" -}}
{{- $rule := dict "apiGroups" (list "") "resources" (list "serviceaccounts/token") "verbs" (list "create") -}}
{{- with . -}}{{- $_ := set $rule "resourceNames" . -}}{{- end -}}
{{- toYaml (list $rule) -}}
{{- end -}}

{{- /* A role: (dict "root" $ "kind" ClusterRole|Role "name" N "namespace" NS "app" APP "rules" YAML), and maybe "annotations" and "labels". */ -}}
{{- define "tidemark.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  {{- include "tidemark.metadata" (dict "root" .root "name" .name "namespace" .namespace "app" .app "annotations" .annotations "labels" .labels) | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
{{- end -}}

{{- /* Its binding to an account: as before, with "binding" KIND "bindingName" B "account" A, and maybe "accountNamespace". */ -}}
{{- define "tidemark.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .binding }}
metadata:
  {{- include "tidemark.metadata" (dict "root" .root "name" .bindingName "namespace" .namespace "app" .app "annotations" .annotations) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .accountNamespace | default .root.Release.Namespace }}
{{- end -}}

{{- /* The binding of a ClusterRole wherever objects are watched: in the whole cluster, or in each namespace. */ -}}
{{- define "tidemark.bindWatched" -}}
{{- $of := merge (dict "kind" "ClusterRole" "bindingName" .name) . -}}
{{- if .root.Values.watchNamespace -}}
{{- $watched := list .root.Release.Namespace -}}
{{- range splitList "," .root.Values.watchNamespace }}{{ $watched = append $watched (trim .) }}{{ end -}}
{{- range $namespace := without (uniq $watched) "" }}
---
{{ include "tidemark.binding" (merge (dict "binding" "RoleBinding" "namespace" $namespace) $of) }}
{{- end }}
{{- else }}
---
{{ include "tidemark.binding" (merge (dict "binding" "ClusterRoleBinding") $of) }}
{{- end -}}
{{- end -}}
