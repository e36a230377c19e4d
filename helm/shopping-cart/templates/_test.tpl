{{/* A pod of `helm test`. Call with a dict: root and check, one of rest, grpc and order. */}}
{{- define "shopping-cart.test" -}}
{{- $edge := printf "%s://%s:%v" (ternary "https" "http" (ne .root.Values.gateway.tls.secretName "")) (include "shopping-cart.component" (list .root "gateway")) .root.Values.gateway.service.port }}
{{- $values := dict "podAnnotations" dict "podLabels" dict "nodeSelector" .root.Values.gateway.nodeSelector "tolerations" .root.Values.gateway.tolerations "affinity" dict "priorityClassName" "" }}
apiVersion: v1
kind: Pod
metadata:
  {{- include "shopping-cart.metadata" (list .root "test" (include "shopping-cart.component" (list .root (printf "test-%s" .check)))) | nindent 2 }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  {{- include "shopping-cart.pod" (dict "root" .root "component" "test" "values" $values) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: check
      {{- include "shopping-cart.image" .root | nindent 6 }}
      args: [python, /tests/check_{{ .check }}.py]
      env:
        - {name: EDGE, value: {{ $edge | quote }}}
      resources:
        requests: {cpu: 10m, memory: 32Mi}
        limits: {memory: 128Mi}
      {{- include "shopping-cart.container.security" .root | nindent 6 }}
      volumeMounts:
        - {name: tests, mountPath: /tests, readOnly: true}
  volumes:
    - name: tests
      configMap: {name: {{ include "shopping-cart.component" (list .root "test") }}}
{{- end }}
