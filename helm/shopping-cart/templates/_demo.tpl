{{- define "shopping-cart.demo.env" -}}
{{ include "shopping-cart.env" . }}
- {name: PRODUCT_TARGET, value: {{ include "shopping-cart.target" (list . "product" 50052) | quote }}}
- {name: ORDER_TARGET, value: {{ include "shopping-cart.target" (list . "order" 50053) | quote }}}
{{- with .Values.demo.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "shopping-cart.demo.load" -}}
metadata:
  {{- include "shopping-cart.pod.metadata" (dict "root" . "component" "demo-load" "values" .Values.demo) | nindent 2 }}
spec:
  {{- include "shopping-cart.pod" (dict "root" . "component" "demo" "values" .Values.demo) | nindent 2 }}
  restartPolicy: OnFailure
  containers:
    - name: load
      {{- include "shopping-cart.image" . | nindent 6 }}
      args: [load-demo]
      env:
        {{- include "shopping-cart.demo.env" . | nindent 8 }}
      resources:
        {{- toYaml .Values.demo.resources | nindent 8 }}
      {{- include "shopping-cart.container.security" . | nindent 6 }}
{{- end }}
