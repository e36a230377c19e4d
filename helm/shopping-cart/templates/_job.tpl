{{/*
The metadata of a Job that runs once for each revision of the release. The name contains the revision and a hash of the
pod: a Job is immutable, and tools that do not count revisions get a new Job only if its pod changes. A Helm hook would not
work: before the install there is no database, and after it `--wait` would wait for services that wait for their schema.
Arguments:
  root       the root context
  component  a component
  pod        the pod template, as YAML
*/}}
{{- define "shopping-cart.job.metadata" -}}
{{- $migration := .root.Values.migration }}
{{- $name := printf "%s-r%d-%s" (include "shopping-cart.componentName" .) (int .root.Release.Revision) (.pod | sha256sum | trunc 5) }}
{{- include "shopping-cart.metadata" (dict "root" .root "component" .component "name" $name "labels" $migration.labels "annotations" $migration.annotations) }}
{{- end }}

{{/*
How often a Job retries and how long it stays. Arguments: the root context.
*/}}
{{- define "shopping-cart.job.limits" -}}
backoffLimit: {{ .Values.migration.backoffLimit }}
{{- if not (kindIs "invalid" .Values.migration.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ .Values.migration.ttlSecondsAfterFinished }}
{{- end }}
{{- end }}
