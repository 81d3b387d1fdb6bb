#!/usr/bin/env bash
# Sets OpenBao up for the operator and the agent of a GPU cluster, as NVCF's migrations do: the login of service accounts at
# auth/jwt with the roles nvca and nvca-operator, their policies, the store with NATS' key, and the engines that sign tokens
# for SIS and ReVal. Run it as often as you like. Needs bash (3.2 or later) and curl.
#
# Secrets reach curl through pipes: never on a command line, never in a file, never in what is printed.
set -uo pipefail

readonly AUTH=auth/jwt
readonly STORE=services/all/kv
readonly NATS_CREDS=$STORE/data/nats/creds
readonly PLUGIN=vault-plugin-secrets-jwt

address=${BAO_ADDR:-${VAULT_ADDR:-}}
token=${BAO_TOKEN:-${VAULT_TOKEN:-}}
unset BAO_TOKEN VAULT_TOKEN
token_file=
audience=http://openbao-server.vault-system.svc.cluster.local:8200
jwks_url=
issuer=
ca_file=
nats_file=
dry_run=false

usage() {
    cat <<'END'
Usage: openbao-setup.sh [--address URL] [--token-file FILE] [--jwks-url URL | --issuer URL] [options]

Sets OpenBao up for NVCF's operator and agent: roles nvca and nvca-operator at auth/jwt, policies, NATS' key, and the engines
that sign their tokens. What is there already is left, or written anew with the same content.

  --address URL           OpenBao (default $BAO_ADDR)
  --token-file FILE       holds a token that may do all this (default: the variable BAO_TOKEN)
  --jwks-url URL          the cluster's keys: https://API-SERVER/openid/v1/jwks
  --issuer URL            who the cluster's tokens say that they are from; without --jwks-url its keys are found there
                          Without both, auth/jwt must be there, and is left as it is.
  --ca-file FILE          authority of those keys' server, PEM
  --audience TEXT         what the tokens of service accounts must be for
                          (default http://openbao-server.vault-system.svc.cluster.local:8200)
  --nats-creds-file FILE  holds NATS' user key and its public key, e.g. what `nk -gen user -pubout` prints
  --dry-run               print what would be changed, and change nothing
  -h, --help              print this

Exit code: 0 all is set up, 1 something failed, 2 wrong usage. BAO_CACERT: authority of OpenBao's own certificate.
END
}

say() { printf '%s\n' "$*"; }

fail() {
    printf 'openbao-setup.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

misused() { fail "$1 (try --help)" 2; }

while (($#)); do
    case $1 in
        --dry-run) dry_run=true ;;
        -h | --help)
            usage
            exit 0
            ;;
        --address | --token-file | --audience | --jwks-url | --issuer | --ca-file | --nats-creds-file)
            (($# > 1)) || misused "$1 needs a value"
            set -- "$1=$2" "${@:3}"
            continue
            ;;
        --address=*) address=${1#*=} ;;
        --token-file=*) token_file=${1#*=} ;;
        --audience=*) audience=${1#*=} ;;
        --jwks-url=*) jwks_url=${1#*=} ;;
        --issuer=*) issuer=${1#*=} ;;
        --ca-file=*) ca_file=${1#*=} ;;
        --nats-creds-file=*) nats_file=${1#*=} ;;
        *) misused "unknown argument: ${1%%=*}" ;;
    esac
    shift
done

is_url() { [[ $1 =~ ^https?://[^[:space:]\"\\]+$ ]]; }

[[ -n $address ]] || misused 'which OpenBao? Give --address or set BAO_ADDR'
is_url "$address" || misused "--address takes a URL, not '$address'"
[[ -z $jwks_url ]] || is_url "$jwks_url" || misused "--jwks-url takes a URL, not '$jwks_url'"
[[ -z $issuer ]] || is_url "$issuer" || misused "--issuer takes a URL, not '$issuer'"
[[ $audience =~ ^[^[:space:]\"\\]+$ ]] || misused "--audience takes one word, not '$audience'"
[[ -z $ca_file || -n $jwks_url$issuer ]] || misused '--ca-file goes with --jwks-url or --issuer'
readonly address=${address%/}

# The text of a file that somebody named.
contents() { cat -- "$2" 2>/dev/null || misused "$1: cannot read $2"; }

if [[ -n $token_file ]]; then
    token=$(contents --token-file "$token_file") || exit
fi
[[ -n $token ]] || misused 'there is no token: give --token-file or set BAO_TOKEN'
[[ $token =~ ^[A-Za-z0-9._-]+$ ]] || misused 'the token is no token of OpenBao'
readonly token

ca=
if [[ -n $ca_file ]]; then
    ca=$(contents --ca-file "$ca_file") || exit
    [[ $ca == *'-----BEGIN CERTIFICATE-----'* ]] || misused "--ca-file: $ca_file holds no certificate"
fi

seed=
public=
if [[ -n $nats_file ]]; then
    creds=$(contents --nats-creds-file "$nats_file") || exit
    [[ $creds =~ (^|[^A-Z0-9])(SU[A-Z2-7]{56})([^A-Z0-9]|$) ]] && seed=${BASH_REMATCH[2]}
    [[ $creds =~ (^|[^A-Z0-9])(U[A-Z2-7]{55})([^A-Z0-9]|$) ]] && public=${BASH_REMATCH[2]}
    unset creds
    [[ -n $seed && -n $public ]] ||
        misused "--nats-creds-file: $nats_file does not hold a user's key (SU...) and its public key (U...)"
fi

command -v curl >/dev/null || fail 'curl is not installed, or not in PATH'

# --- OpenBao ---

status=
answer=

# METHOD PATH, a body on standard input. Sets `status` and `answer`; fails where nobody answers.
call() {
    local said
    said=$(curl -q -sS --max-time 30 ${BAO_CACERT:+--cacert "$BAO_CACERT"} -X "$1" \
        -K <(printf 'header = "X-Vault-Token: %s"\n' "$token") -H 'Content-Type: application/json' \
        --data-binary @- -w '\n%{http_code}' "$address/v1/$2" 2>&1) || fail "OpenBao cannot be reached: ${said%$'\n'*}"
    status=${said##*$'\n'}
    answer=${said%$'\n'*}
}

# Reads PATH. Fails, where OpenBao refuses; what is not there is an answer.
look() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        call GET "$1" </dev/null
        # A new store is not there at once.
        [[ $status == 400 && $answer == *pgrading* && $try != 10 ]] || break
        sleep 1
    done
    [[ $status == 200 || $status == 404 ]] || refused "read $1"
}

refused() {
    local why=$answer
    [[ -z $seed ]] || why=${why//"$seed"/***}
    fail "OpenBao refuses to $1: $status ${why//"$token"/***}"
}

# WHAT PATH BODY: writes, and says so.
change() {
    if $dry_run; then
        say "would $1"
        return
    fi
    call POST "$2" < <(printf '%s' "$3")
    [[ $status == 20[04] ]] || refused "$1"
    say "$1: done"
}

# A text as JSON has it.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    printf '"%s"' "${text//$'\n'/\\n}"
}

# Whether the table of mounts that was read last has this one, of this type.
is_mounted() {
    local after=${answer#*"\"$1/\":{"}
    [[ $after != "$answer" ]] || return 1
    after=${after#*'"type":"'}
    [[ ${after%%\"*} == "$2" ]] || fail "$1 is mounted as ${after%%\"*}, not as $2: it has to go first"
}

# --- what is set up ---

login() {
    local key config=
    look sys/auth
    if is_mounted jwt jwt; then
        say "mount $AUTH: there already"
    else
        [[ -n $jwks_url$issuer ]] || misused "$AUTH is not mounted yet: give --jwks-url or --issuer"
        change "mount $AUTH" sys/auth/jwt '{"type":"jwt"}'
    fi
    if [[ -n $jwks_url ]]; then
        key=jwks_ca_pem
        config="\"jwks_url\":$(quoted "$jwks_url")"
    elif [[ -n $issuer ]]; then
        key=oidc_discovery_ca_pem
        config="\"oidc_discovery_url\":$(quoted "$issuer")"
    else
        return
    fi
    [[ -z $ca ]] || config+=",\"$key\":$(quoted "$ca")"
    [[ -z $issuer ]] || config+=",\"bound_issuer\":$(quoted "$issuer")"
    change "trust the cluster's tokens" "$AUTH/config" "{$config}"
}

# NAME PATH CAPABILITIES
policy() {
    local text
    text="path \"$2\" { capabilities = [$3] }"
    change "write the policy $1" "sys/policies/acl/$1" "{\"policy\":$(quoted "$text")}"
}

# NAME NAMESPACE SERVICE...: the role of the service account of that name, which may have tokens for these services signed.
role() {
    local name=$1 namespace=$2 service policies='"services-all-kv-ro"'
    shift 2
    for service; do
        policy "services-$service-jwt-sign-$name-rw" "services/$service/jwt/sign/$name" '"create", "update", "read"'
        policies+=",\"services-$service-jwt-sign-$name-rw\""
    done
    change "write the role $name" "$AUTH/role/$name" "{
        \"role_type\": \"jwt\", \"bound_audiences\": [$(quoted "$audience")], \"user_claim\": \"sub\",
        \"bound_claims\": {\"/kubernetes.io/namespace\": \"$namespace\", \"/kubernetes.io/serviceaccount/name\": \"$name\"},
        \"claim_mappings\": {\"/kubernetes.io/namespace\": \"service_account_namespace\",
            \"/kubernetes.io/serviceaccount/name\": \"service_name\", \"/kubernetes.io/pod/name\": \"pod_name\"},
        \"token_policies\": [$policies], \"token_period\": 43200, \"token_type\": \"service\",
        \"clock_skew_leeway\": 60, \"expiration_leeway\": 60, \"not_before_leeway\": 60}"
}

store() {
    look sys/mounts
    if is_mounted "$STORE" kv; then
        say "mount $STORE: there already"
    else
        change "mount $STORE" "sys/mounts/$STORE" '{"type":"kv","options":{"version":"2"}}'
    fi
    policy services-all-kv-ro "$STORE/*" '"read", "list"'
    [[ -n $seed ]] || return
    look "$NATS_CREDS"
    # A store keeps every version: none is added that says the same.
    if [[ $answer == *"\"key\":\"$seed\""* && $answer == *"\"public_key\":\"$public\""* ]]; then
        say "NATS' key: there already"
    else
        change "store NATS' key, of $public" "$NATS_CREDS" "{\"data\":{\"key\":\"$seed\",\"public_key\":\"$public\"}}"
    fi
}

# SERVICE ISSUER: fails where the engine is not known.
engine() {
    local mount=services/$1/jwt
    look sys/mounts
    if is_mounted "$mount" "$PLUGIN"; then
        say "mount $mount: there already"
    elif ! $dry_run; then
        call POST "sys/mounts/$mount" < <(printf '{"type":"%s"}' "$PLUGIN")
        case $status:$answer in
            20[04]:*) say "mount $mount: done" ;;
            400:*'plugin not found'*) return 1 ;;
            *) refused "mount $mount" ;;
        esac
    else
        say "would mount $mount, where the plugin $PLUGIN is registered"
    fi
    change "set $mount up" "$mount/config" '{"sig_alg":"ES256","jwt_ttl":"12h","key_ttl":"87660h"}'
}

# SERVICE ISSUER ROLE SCOPES
signer() {
    change "write the signing role $3 of $1" "services/$1/jwt/roles/$3" "{\"issuer\": \"$2\", \"claims\":
        {\"azp\": \"$3\", \"sub\": \"$3\", \"aud\": [\"$3\", \"s:api\"], \"scopes\": [$4]}}"
}

signing() {
    local sis=http://api.sis.svc.cluster.local reval=http://reval.nvcf.svc.cluster.local
    if ! engine sis-api; then
        say "SKIPPED: the plugin $PLUGIN is not registered with this OpenBao; until it is, nobody gets a token for SIS."
        say '  Register it (bao plugin register), and run this again.'
        return
    fi
    signer sis-api "$sis" nvca '"nvca-cluster", "instance_request_update"'
    signer sis-api "$sis" nvca-operator '"cluster-management"'
    engine reval || fail "the plugin $PLUGIN is gone"
    signer reval "$reval" nvca '"helmreval:render"'
}

# --- main ---

call GET sys/health </dev/null
[[ $status == 200 && $answer == *'"sealed":false'* ]] || fail "there is no unsealed OpenBao at $address: $answer"
login
store
role nvca nvca-system sis-api reval
role nvca-operator nvca-operator sis-api
signing
if $dry_run; then
    say 'This was a dry run: nothing was changed.'
fi
