{{/*
The issuer of tokens. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.issuer" -}}
{{- if .Values.auth.demoIssuer.enabled -}}
http://{{ include "shopping-cart.componentName" (dict "root" . "component" "issuer") }}:{{ include "shopping-cart.port" (dict "component" "issuer") }}
{{- else -}}
{{ .Values.auth.issuer }}
{{- end }}
{{- end }}

{{/*
The audiences of tokens, as a JSON list. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.audiences" -}}
{{- $audience := .Values.auth.audience }}
{{- if and (not $audience) .Values.auth.demoIssuer.enabled }}
{{- $audience = "shop" }}
{{- end }}
{{- if kindIs "string" $audience }}
{{- $audience = list $audience }}
{{- end }}
{{- toJson $audience }}
{{- end }}

{{/*
"true" if the issuer's keys are mounted, and empty if they are fetched. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.isKeyFile" -}}
{{- if or .Values.auth.jwks.secretName .Values.auth.jwks.configMapName }}true{{ end }}
{{- end }}

{{/*
The name of a Secret that the shop's own processes share. Arguments:
  root       the root context
  component  "internal" or "tickets"
*/}}
{{- define "shopping-cart.auth.secretName" -}}
{{- default (include "shopping-cart.componentName" .) (index .root.Values.auth .component).existingSecret }}
{{- end }}

{{/*
The secrets, and the issuer's keys and certificate authority, as volumes of a pod. They are mounted as folders, so that a change
of them arrives without a restart. Of the issuer's Secrets, which may have private keys as well, only the file that is read is
mounted. Arguments:
  root       the root context
  component  "product", "order" or "gateway"
*/}}
{{- define "shopping-cart.auth.volumes" -}}
{{- $auth := .root.Values.auth -}}
- name: internal-credentials
  secret: {secretName: {{ include "shopping-cart.auth.secretName" (dict "root" .root "component" "internal") }}}
{{- if eq .component "order" }}
- name: ticket-keys
  secret: {secretName: {{ include "shopping-cart.auth.secretName" (dict "root" .root "component" "tickets") }}}
{{- end }}
{{- with $auth.jwks.secretName }}
- name: jwks
  secret:
    secretName: {{ . }}
    items: [{key: {{ $auth.jwks.key | quote }}, path: {{ $auth.jwks.key | quote }}}]
{{- end }}
{{- with $auth.jwks.configMapName }}
- name: jwks
  configMap: {name: {{ . }}}
{{- end }}
{{- with $auth.ca.secretName }}
- name: issuer-ca
  secret:
    secretName: {{ . }}
    items: [{key: {{ $auth.ca.key | quote }}, path: {{ $auth.ca.key | quote }}}]
{{- end }}
{{- end }}

{{/*
The mounts of those volumes, for the same arguments.
*/}}
{{- define "shopping-cart.auth.volumeMounts" -}}
- {name: internal-credentials, mountPath: /internal-credentials, readOnly: true}
{{- if eq .component "order" }}
- {name: ticket-keys, mountPath: /ticket-keys, readOnly: true}
{{- end }}
{{- if include "shopping-cart.auth.isKeyFile" .root }}
- {name: jwks, mountPath: /jwks, readOnly: true}
{{- end }}
{{- if .root.Values.auth.ca.secretName }}
- {name: issuer-ca, mountPath: /issuer-ca, readOnly: true}
{{- end }}
{{- end }}

{{/*
The variables of who may call. Arguments:
  root       the root context
  component  "product", "order" or "gateway"
*/}}
{{- define "shopping-cart.auth.env" -}}
{{- $auth := .root.Values.auth -}}
- {name: INTERNAL_CREDENTIALS, value: /internal-credentials}
{{- if and .root.Values.acceptMissingCredentialUntil (ne .component "gateway") }}
- {name: INTERNAL_CREDENTIALS_OPTIONAL_UNTIL, value: {{ .root.Values.acceptMissingCredentialUntil | quote }}}
{{- end }}
{{- if eq .component "order" }}
- {name: TICKET_KEYS, value: /ticket-keys}
- {name: AUTH_STREAM_TICKET_TTL, value: {{ int $auth.tickets.streamTTL | quote }}}
{{- end }}
{{- if not $auth.reflection.enabled }}
- {name: REFLECTION, value: "false"}
{{- end }}
{{- if eq $auth.mode "jwt" }}
- {name: AUTH_MODE, value: jwt}
{{ include "shopping-cart.auth.issuerEnv" .root }}
{{- with $auth.jwks.url }}
- {name: AUTH_JWKS_URL, value: {{ . | quote }}}
{{- end }}
{{- if include "shopping-cart.auth.isKeyFile" .root }}
- {name: AUTH_JWKS_FILE, value: /jwks/{{ $auth.jwks.key }}}
{{- else }}
- {name: AUTH_JWKS_REFRESH, value: {{ int $auth.jwks.refresh | quote }}}
{{- end }}
- {name: AUTH_ALGORITHMS, value: {{ join "," $auth.algorithms | quote }}}
- {name: AUTH_LEEWAY, value: {{ int $auth.leeway | quote }}}
- {name: AUTH_GUESTS, value: {{ $auth.guests | quote }}}
{{- if and $auth.guests (eq .component "order") }}
- {name: AUTH_GUEST_TICKET_TTL, value: {{ int $auth.tickets.guestTTL | quote }}}
{{- end }}
{{- if $auth.ca.secretName }}
- {name: SSL_CERT_FILE, value: /issuer-ca/{{ $auth.ca.key }}}
{{- end }}
{{- end }}
{{- end }}

{{/*
The variables that say which tokens are accepted. The demo issuer makes tokens by them. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.issuerEnv" -}}
{{- $staff := .Values.auth.staff -}}
- {name: AUTH_ISSUER, value: {{ include "shopping-cart.auth.issuer" . | quote }}}
- {name: AUTH_AUDIENCE, value: {{ include "shopping-cart.auth.audiences" . | fromJsonArray | join "," | quote }}}
- {name: AUTH_STAFF_CLAIM, value: {{ $staff.claim | quote }}}
- {name: AUTH_STAFF_VALUE, value: {{ $staff.value | quote }}}
{{- end }}

{{/*
The variables of those who make tokens: the demo issuer, and the demo, which acts as staff. Empty without a demo issuer.
Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.signerEnv" -}}
{{- if .Values.auth.demoIssuer.enabled -}}
- {name: ISSUER_KEY, value: /issuer-key/key.pem}
{{ include "shopping-cart.auth.issuerEnv" . }}
{{- end }}
{{- end }}

{{/*
Volumes with the demo issuer's key and extraVolumes. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.signerVolumes" -}}
{{- if .Values.auth.demoIssuer.enabled -}}
- name: issuer-key
  secret: {secretName: {{ include "shopping-cart.componentName" (dict "root" . "component" "issuer") }}}
{{- end }}
{{- with .Values.demo.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The mounts of those volumes. Arguments: the root context.
*/}}
{{- define "shopping-cart.auth.signerVolumeMounts" -}}
{{- if .Values.auth.demoIssuer.enabled -}}
- {name: issuer-key, mountPath: /issuer-key, readOnly: true}
{{- end }}
{{- with .Values.demo.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Until when product and order accept internal calls without a credential. Empty: they do not. The pods of a release that
had no credential yet send none, so an upgrade accepts that for an hour. Another upgrade in that hour keeps the time.
Arguments:
  live  the live Deployment of product, which may be empty
  now   the time
*/}}
{{- define "shopping-cart.auth.acceptMissingUntil" -}}
{{- $layout := "2006-01-02T15:04:05Z07:00" }}
{{- $sends := false }}
{{- $until := "" }}
{{- range dig "spec" "template" "spec" "containers" list .live }}
{{- range .env }}
{{- if eq .name "INTERNAL_CREDENTIALS" }}
{{- $sends = true }}
{{- else if eq .name "INTERNAL_CREDENTIALS_OPTIONAL_UNTIL" }}
{{- $until = .value }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .live (not $sends) }}
{{- dateInZone $layout (dateModify "1h" .now) "UTC" }}
{{- else if and $until (gt (toDate $layout $until | unixEpoch | int64) (unixEpoch .now | int64)) }}
{{- $until }}
{{- end }}
{{- end }}

{{/*
Fails if values of `auth` contradict each other. Arguments: the root context.
*/}}
{{- define "shopping-cart.checkAuth" -}}
{{- $auth := .Values.auth }}
{{- $keys := dict "auth.jwks.url" $auth.jwks.url "auth.jwks.secretName" $auth.jwks.secretName "auth.jwks.configMapName" $auth.jwks.configMapName }}
{{- $provider := merge (dict "auth.issuer" $auth.issuer "auth.ca.secretName" $auth.ca.secretName) $keys }}
{{- if eq $auth.mode "none" }}
{{- if not $auth.guests }}
{{- fail "auth.guests: false has no effect with auth.mode none: everyone can order. Set auth.mode to jwt" }}
{{- end }}
{{- range $key, $value := merge (dict "auth.audience" $auth.audience "auth.demoIssuer.enabled" $auth.demoIssuer.enabled) $provider }}
{{- if $value }}
{{- fail (printf "%s has no effect with auth.mode none: set auth.mode to jwt" $key) }}
{{- end }}
{{- end }}
{{- else }}
{{- range $component, $values := dict "product" .Values.product "order" .Values.order "gateway.sse" .Values.gateway.sse }}
{{- range $values.extraEnv }}
{{- if and (eq .name "CALLER_HEADER") (or .value .valueFrom) }}
{{- fail (printf "CALLER_HEADER in %s.extraEnv cannot be used with auth.mode jwt: the token names the caller" $component) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $auth.demoIssuer.enabled }}
{{- range $key, $value := $provider }}
{{- if $value }}
{{- fail (printf "%s cannot be used with auth.demoIssuer.enabled, which is an issuer of its own" $key) }}
{{- end }}
{{- end }}
{{- else }}
{{- if not $auth.issuer }}
{{- fail "auth.issuer is missing: the `iss` of tokens. To try it without a provider, set auth.demoIssuer.enabled" }}
{{- end }}
{{- if not $auth.audience }}
{{- fail "auth.audience is missing: the `aud` of tokens" }}
{{- end }}
{{- if gt (len (compact (values $keys))) 1 }}
{{- fail "auth.jwks: set only one of url, secretName and configMapName" }}
{{- end }}
{{- if not (or (compact (values $keys)) (regexMatch "^https?://[^/]" $auth.issuer)) }}
{{- fail (printf "auth.issuer: the keys of %s cannot be discovered, because it is no http or https URL: set auth.jwks" $auth.issuer) }}
{{- end }}
{{- if .Values.demo.enabled }}
{{- fail "demo.enabled needs auth.demoIssuer.enabled with auth.mode jwt, because the demo acts as staff" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
