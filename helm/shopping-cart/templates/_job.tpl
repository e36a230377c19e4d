{{/*
A Job that runs once for each revision. Its name has the revision and a hash of what it runs: a Job cannot be changed, and
tools that do not count revisions make a new one when there is something new to run. A hook would not do: before the
install there is no database yet, and after it `--wait` waits for services that wait for their schema. Call with a dict:
root, component and pod (its template, as YAML).
*/}}
{{- define "shopping-cart.job" -}}
{{- $migration := .root.Values.migration }}
{{- $name := printf "%s-r%d-%s" (include "shopping-cart.component" (list .root .component)) (int .root.Release.Revision) (.pod | sha256sum | trunc 5) }}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "shopping-cart.metadata" (dict "root" .root "component" .component "name" $name "labels" $migration.labels "annotations" $migration.annotations) | nindent 2 }}
spec:
  backoffLimit: {{ $migration.backoffLimit }}
  {{- if not (kindIs "invalid" $migration.ttlSecondsAfterFinished) }}
  ttlSecondsAfterFinished: {{ $migration.ttlSecondsAfterFinished }}
  {{- end }}
  template:
    {{- .pod | nindent 4 }}
{{- end }}

{{/* The Job that brings a service's schema up to date. Call with (list $ "product"). */}}
{{- define "shopping-cart.migration" -}}
{{- $component := printf "%s-migrate" (index . 1) }}
{{- include "shopping-cart.job" (dict "root" (index . 0) "component" $component "pod" (include "shopping-cart.migration.pod" .)) }}
{{- end }}

{{- define "shopping-cart.migration.pod" -}}
{{- $root := index . 0 }}
{{- $service := index . 1 }}
{{- $values := index $root.Values $service }}
{{- $migration := $root.Values.migration }}
metadata:
  {{- include "shopping-cart.pod.metadata" (dict "root" $root "component" (printf "%s-migrate" $service) "values" $values "over" $migration) | nindent 2 }}
spec:
  {{- include "shopping-cart.pod" (dict "root" $root "component" $service "values" $values) | nindent 2 }}
  restartPolicy: OnFailure
  {{- include "shopping-cart.lists" (dict "initContainers" $values.initContainers) | indent 2 }}
  containers:
    - name: migrate
      {{- include "shopping-cart.image" $root | nindent 6 }}
      args: [migrate, {{ $service }}]
      {{- include "shopping-cart.env" (dict "own" (printf "%s\n%s" (include "shopping-cart.env.common" $root) (include "shopping-cart.env.database" .)) "values" $values) | nindent 6 }}
      {{- include "shopping-cart.container" (dict "root" $root "values" (dict "resources" $migration.resources "containerSecurityContext" $values.containerSecurityContext)) | nindent 6 }}
      {{- include "shopping-cart.lists" (dict "volumeMounts" (include "shopping-cart.database.mounts" $values | fromYamlArray)) | indent 6 }}
  {{- include "shopping-cart.lists" (dict "volumes" (include "shopping-cart.database.volumes" . | fromYamlArray)) | indent 2 }}
{{- end }}
