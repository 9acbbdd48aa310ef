{{- define "hookline.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for what follows it, such as -nats-nodes and a pod's number. */}}
{{- define "hookline.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "hookline.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Those that never change. Argument: a dict of `root` and `component`. */}}
{{- define "hookline.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hookline.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "hookline.labels" -}}
{{ include "hookline.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hookline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Argument: a dict of `root`, `component` and, if it is not that of the release's namespace alone, `suffix`. */}}
{{- define "hookline.metadata" -}}
name: {{ include "hookline.fullname" .root }}-{{ .suffix | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "hookline.labels" . | nindent 2 }}
{{- end -}}

{{- define "hookline.image" -}}
{{- with .image.registry }}{{ . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{- define "hookline.serviceAccountName" -}}
{{- .values.serviceAccount.name | default (printf "%s-%s" (include "hookline.fullname" .root) .component) -}}
{{- end -}}

{{/* The Secret of passwords. Argument: a dict of `root`, `component` and `values`, those of the component. */}}
{{- define "hookline.passwords" -}}
{{- $name := .values.existingSecret | default .root.Values.existingSecret -}}
{{- required (printf "existingSecret: %s needs the Secret with passwords; see Secrets in the chart's README.md" .component) $name -}}
{{- end -}}

{{- define "hookline.natsUrl" -}}
{{- if .Values.nats.url -}}
{{- .Values.nats.url -}}
{{- else if .Values.nats.enabled -}}
tls://$(NATS_USER):$(NATS_PASSWORD)@{{ include "hookline.fullname" . }}-nats.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{- fail "nats.url: give the address of NATS, or set nats.enabled" -}}
{{- end -}}
{{- end -}}

{{- define "hookline.redisUrl" -}}
{{- if .Values.redis.url -}}
{{- .Values.redis.url -}}
{{- else if .Values.redis.enabled -}}
rediss://dispatcher:$(REDIS_PASSWORD)@{{ include "hookline.fullname" . }}-redis.{{ .Release.Namespace }}.svc:6379
{{- else -}}
{{- fail "redis.url: give the address of Redis, or set redis.enabled" -}}
{{- end -}}
{{- end -}}

{{/* Variables of a service. Kubernetes fills in $(NAME) only if NAME stands before. */}}
{{- define "hookline.env" -}}
{{- $root := .root -}}
{{- $files := $root.Values.files -}}
{{- $nats := include "hookline.natsUrl" $root -}}
- name: HOOKLINE_STATUS_LISTEN
  value: 0.0.0.0:{{ .statusPort }}
{{- if contains "$(NATS_USER)" $nats }}
- name: NATS_USER
  value: {{ .component }}
{{- end }}
{{- if contains "$(NATS_PASSWORD)" $nats }}
- name: NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "hookline.passwords" . }}
      key: HOOKLINE_NATS_{{ upper .component }}_PASSWORD
{{- end }}
- name: HOOKLINE_NATS_URL
  value: {{ $nats | quote }}
{{- if and $files.existingSecret $root.Values.nats.tls.authority (contains "tls://" $nats) }}
- name: HOOKLINE_NATS_TLS_CA
  value: /etc/hookline/authority.crt
{{- end }}
{{- if and $files.existingSecret $files.keyring }}
- name: HOOKLINE_KEYRING_FILE
  value: /etc/hookline/keyring
{{- end }}
{{- if eq .component "gateway" }}
- name: HOOKLINE_ADMIN_LISTEN
  value: 0.0.0.0:8001
{{- if .values.ingest.enabled }}
- name: HOOKLINE_INGEST_LISTEN
  value: 0.0.0.0:8050
{{- if .values.ingest.tls.existingSecret }}
- name: HOOKLINE_INGEST_TLS_CERT
  value: /etc/hookline-ingest-tls/tls.crt
- name: HOOKLINE_INGEST_TLS_KEY
  value: /etc/hookline-ingest-tls/tls.key
{{- end }}
{{- end }}
{{- if .values.tls.existingSecret }}
- name: HOOKLINE_ADMIN_TLS_CERT
  value: /etc/hookline-tls/tls.crt
- name: HOOKLINE_ADMIN_TLS_KEY
  value: /etc/hookline-tls/tls.key
{{- end }}
- name: HOOKLINE_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "hookline.passwords" . }}
      key: HOOKLINE_PASSWORD
{{- else }}
{{- $redis := include "hookline.redisUrl" $root }}
{{- if contains "$(REDIS_PASSWORD)" $redis }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "hookline.passwords" . }}
      key: HOOKLINE_REDIS_DISPATCHER_PASSWORD
{{- end }}
- name: HOOKLINE_REDIS_URL
  value: {{ $redis | quote }}
{{- if and $files.existingSecret $root.Values.redis.tls.authority (contains "rediss" $redis) }}
- name: HOOKLINE_REDIS_TLS_CA
  value: /etc/hookline/authority.crt
{{- end }}
{{- with .values.egressAllow }}
- name: HOOKLINE_EGRESS_ALLOW
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := merge (dict) .values.settings $root.Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the files of a service are mounted from. */}}
{{- define "hookline.volumes" -}}
{{- with .root.Values.files.existingSecret }}
- name: files
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      {{- if $.root.Values.files.keyring }}
      - {key: keyring, path: keyring}
      {{- end }}
      {{- if or $.root.Values.nats.tls.authority $.root.Values.redis.tls.authority }}
      - {key: authority.crt, path: authority.crt}
      {{- end }}
{{- end }}
{{- if eq .component "gateway" }}
{{- with .values.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- if .values.ingest.enabled }}
{{- with .values.ingest.tls.existingSecret }}
- name: ingest-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "hookline.volumeMounts" -}}
{{- if .root.Values.files.existingSecret }}
- {name: files, mountPath: /etc/hookline, readOnly: true}
{{- end }}
{{- if eq .component "gateway" }}
{{- if .values.tls.existingSecret }}
- {name: tls, mountPath: /etc/hookline-tls, readOnly: true}
{{- end }}
{{- if and .values.ingest.enabled .values.ingest.tls.existingSecret }}
- {name: ingest-tls, mountPath: /etc/hookline-ingest-tls, readOnly: true}
{{- end }}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What all pods have: where they run, and as whom. */}}
{{- define "hookline.podSettings" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .values.podSecurityContext | nindent 2 }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey .values "topologySpreadConstraints" }}
topologySpreadConstraints:
  {{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "hookline.selectorLabels" . | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Without versions, so that servers are not restarted by each release of the chart. */}}
{{- define "hookline.podMetadata" -}}
labels:
  {{- include "hookline.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: hookline
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .values.podAnnotations .config }}
annotations:
  {{- with .config }}
  checksum/config: {{ . }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "hookline.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "hookline.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.pdb.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "hookline.selectorLabels" . | nindent 6 }}
{{- end -}}
