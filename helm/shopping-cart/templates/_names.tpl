{{- define "shopping-cart.name" -}}
{{- default .Chart.Name .Values.nameOverride }}
{{- end }}

{{/* What the names of all objects begin with. */}}
{{- define "shopping-cart.fullname" -}}
{{- $name := include "shopping-cart.name" . }}
{{- $fullname := .Values.fullnameOverride }}
{{- if not $fullname }}
{{- $fullname = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
{{- fail (printf "%q cannot be the beginning of a Service's name, which starts with a letter and has letters, digits and hyphens only: set fullnameOverride" $fullname) }}
{{- end }}
{{- $fullname }}
{{- end }}

{{/*
A component's name: a Service has 63 characters, and a StatefulSet 52, since Kubernetes makes labels of it. A longer one is
cut and gets a hash of the whole, so that no two releases share it. Call with (list $ "product-db").
*/}}
{{- define "shopping-cart.component" -}}
{{- $fullname := include "shopping-cart.fullname" (index . 0) }}
{{- $room := int (sub 51 (len (index . 1))) }}
{{- if gt (len $fullname) $room }}
{{- $fullname = printf "%s-%s" ($fullname | trunc (int (sub $room 6)) | trimSuffix "-") ($fullname | sha256sum | trunc 5) }}
{{- end }}
{{- printf "%s-%s" $fullname (index . 1) }}
{{- end }}

{{/* Never change these: a Deployment's selector is for ever. Call with (list $ "product"). */}}
{{- define "shopping-cart.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "shopping-cart.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/*
Labels, each key once. Call with a dict: root, component, and maybe labels of the user's; `lasting` leaves out what a new
version of the chart would change.
*/}}
{{- define "shopping-cart.labels" -}}
{{- $own := include "shopping-cart.selector" (list .root .component) | fromYaml }}
{{- if not .lasting }}
{{- $chart := .root.Chart }}
{{- $own = merge $own (dict
  "app.kubernetes.io/version" $chart.AppVersion
  "app.kubernetes.io/part-of" $chart.Name
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $chart.Name $chart.Version | replace "+" "_" | trunc 63)
) }}
{{- end }}
{{- merge $own (default dict .labels) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/*
The metadata of an object. Call with a dict: root and component; and maybe name, where it differs, labels and annotations.
*/}}
{{- define "shopping-cart.metadata" -}}
name: {{ .name | default (include "shopping-cart.component" (list .root .component)) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "shopping-cart.labels" (dict "root" .root "component" .component "labels" .labels) | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where gRPC clients inside find a service. Call with (list $ "product" 50052). */}}
{{- define "shopping-cart.target" -}}
dns:///{{ include "shopping-cart.component" . }}:{{ index . 2 }}
{{- end }}

{{/* The Secret with a database's address and credentials. Call with (list $ "product"). */}}
{{- define "shopping-cart.database.secret" -}}
{{- $root := index . 0 }}
{{- default (include "shopping-cart.component" (list $root (printf "%s-db" (index . 1)))) (index $root.Values (index . 1)).database.existingSecret }}
{{- end }}

{{/* A component's ServiceAccount. Call with (list $ "product" .Values.product). */}}
{{- define "shopping-cart.account" -}}
{{- $name := "" }}
{{- with get (index . 2) "serviceAccount" }}
{{- $name = .name }}
{{- end }}
{{- default (include "shopping-cart.component" .) $name }}
{{- end }}
