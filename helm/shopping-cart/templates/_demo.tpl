{{- define "shopping-cart.demo.env" -}}
{{ include "shopping-cart.env.common" . }}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.target" (list . "product" 50052) | quote }}}
- {name: ORDER_TARGET, value: {{ include "shopping-cart.target" (list . "order" 50053) | quote }}}
{{- end }}

{{/* A container of the demo's, of which `args` are its command. Call with a dict: root, name and args. */}}
{{- define "shopping-cart.demo.container" -}}
{{- $demo := .root.Values.demo -}}
- name: {{ .name }}
  {{- include "shopping-cart.image" .root | nindent 2 }}
  args: [{{ .args }}]
  {{- include "shopping-cart.env" (dict "own" (include "shopping-cart.demo.env" .root) "values" $demo) | nindent 2 }}
  {{- include "shopping-cart.container" (dict "root" .root "values" $demo) | nindent 2 }}
  {{- include "shopping-cart.lists" (dict "volumeMounts" $demo.extraVolumeMounts) | indent 2 }}
{{- end }}

{{- define "shopping-cart.demo.load" -}}
metadata:
  {{- include "shopping-cart.pod.metadata" (dict "root" . "component" "demo-load" "values" .Values.demo "over" .Values.migration) | nindent 2 }}
spec:
  {{- include "shopping-cart.pod" (dict "root" . "component" "demo" "values" .Values.demo) | nindent 2 }}
  restartPolicy: OnFailure
  {{- include "shopping-cart.lists" (dict "initContainers" .Values.demo.initContainers) | indent 2 }}
  containers:
    {{- include "shopping-cart.demo.container" (dict "root" . "name" "load" "args" "load-demo") | nindent 4 }}
  {{- include "shopping-cart.lists" (dict "volumes" .Values.demo.extraVolumes) | indent 2 }}
{{- end }}
