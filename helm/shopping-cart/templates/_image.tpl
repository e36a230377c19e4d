{{/*
An image's reference: from the registry that is set, and by digest where there is one. Call with a dict: root, image, and
the tag that counts where the image has none.
*/}}
{{- define "shopping-cart.reference" -}}
{{- $repository := .image.repository }}
{{- with .root.Values.global.imageRegistry | default .image.registry }}
{{- /* A first part with a dot or a colon is a registry already. */}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") }}
{{- end }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/* The shop's own image. */}}
{{- define "shopping-cart.image" -}}
image: {{ include "shopping-cart.reference" (dict "root" . "image" .Values.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* The Secrets for pulling, the chart's and the global ones, each once. */}}
{{- define "shopping-cart.pullsecrets" -}}
{{- $names := list }}
{{- range concat .Values.imagePullSecrets .Values.global.imagePullSecrets }}
{{- $names = append $names (ternary . (get (ternary (dict) . (kindIs "string" .)) "name") (kindIs "string" .)) }}
{{- end }}
{{- range uniq $names }}
- name: {{ . }}
{{- end }}
{{- end }}
