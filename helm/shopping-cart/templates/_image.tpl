{{/*
The reference of an image, by digest if there is one. Arguments:
  root   the root context
  image  values with registry, repository, tag and digest
  tag    the tag that is used if `image` has none
*/}}
{{- define "shopping-cart.imageReference" -}}
{{- $repository := .image.repository }}
{{- with .root.Values.global.imageRegistry | default .image.registry }}
{{- /* A first part with a dot or a colon is a registry; the given one replaces it. */}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") }}
{{- end }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/*
The shop's own image, as keys of a container. Arguments: the root context.
*/}}
{{- define "shopping-cart.image" -}}
image: {{ include "shopping-cart.imageReference" (dict "root" . "image" .Values.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/*
The Secrets for pulling images, the chart's and the global ones, each once. Arguments: the root context.
*/}}
{{- define "shopping-cart.imagePullSecrets" -}}
{{- $names := list }}
{{- range concat .Values.imagePullSecrets .Values.global.imagePullSecrets }}
{{- $names = append $names (ternary . (get (ternary (dict) . (kindIs "string" .)) "name") (kindIs "string" .)) }}
{{- end }}
{{- range uniq $names }}
- name: {{ . }}
{{- end }}
{{- end }}
