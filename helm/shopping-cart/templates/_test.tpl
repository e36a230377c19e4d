{{/* A pod of `helm test`. Call with a dict: root and check, one of rest, grpc and order. */}}
{{- define "shopping-cart.test" -}}
{{- $values := .root.Values.tests }}
{{- $gateway := .root.Values.gateway }}
{{- if $values.enabled -}}
{{- $edge := printf "%s://%s:%v" (ternary "https" "http" (ne $gateway.tls.secretName "")) (include "shopping-cart.component" (list .root "gateway")) $gateway.service.port }}
{{- /* `helm test --logs` of Helm 3 reads logs after it has deleted what goes by this policy. */}}
{{- $policy := ternary "before-hook-creation" "before-hook-creation,hook-succeeded" (hasPrefix "v3." .root.Capabilities.HelmVersion.Version) }}
{{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" $policy }}
{{- $places := dict "nodeSelector" (default $gateway.nodeSelector $values.nodeSelector) "tolerations" (default $gateway.tolerations $values.tolerations) }}
apiVersion: v1
kind: Pod
metadata:
  {{- include "shopping-cart.metadata" (dict "root" .root "component" "test" "name" (include "shopping-cart.component" (list .root (printf "test-%s" .check))) "labels" $values.podLabels "annotations" (merge (dict) $hook $values.podAnnotations)) | nindent 2 }}
spec:
  {{- include "shopping-cart.pod" (dict "root" .root "component" "test" "values" (merge (dict) $places $values)) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: check
      {{- include "shopping-cart.image" .root | nindent 6 }}
      args: [python, /tests/check_{{ .check }}.py]
      env:
        - {name: EDGE, value: {{ $edge | quote }}}
      {{- include "shopping-cart.container" (dict "root" .root "values" $values) | nindent 6 }}
      volumeMounts:
        - {name: tests, mountPath: /tests, readOnly: true}
  volumes:
    - name: tests
      configMap: {name: {{ include "shopping-cart.component" (list .root "test") }}}
{{- end }}
{{- end }}
