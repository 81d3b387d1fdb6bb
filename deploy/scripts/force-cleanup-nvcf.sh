#!/usr/bin/env bash
# Removes every trace of NVCF's cluster agent from a cluster, also where its operator cannot do so any more: finalizers that
# nobody serves, webhooks whose backend is dead, namespaces that hang in Terminating.
#
# Goes around until nothing is left. In each round, in this order: webhooks, so that nothing blocks; programs and pods; custom
# resources; cluster roles; Helm's memory; namespaces; definitions; labels of nodes. Needs bash (3.2 or later) and kubectl.
set -uo pipefail

readonly OPERATOR=nvca-operator
readonly NAMESPACES="nvcf-backend nvca-system nvca-modelcache-init $OPERATOR"
# Namespaces of workloads are called sr-*, and have this label. People put it on their own namespaces, too.
readonly WORKLOAD=nvca.nvcf.nvidia.io/workload-instance-type
readonly CLEANUP_FINALIZER=nvca.nvcf.nvidia.io/operator-cleanup
readonly REGISTRATION=nvca-cluster-registration
readonly SENTINEL=nvca-operator-shutdown-sentinel
readonly NODE_LABELS=nvca.nvcf.nvidia.io/
# The chart's objects.
readonly CHART=app.kubernetes.io/instance=$OPERATOR
readonly PROGRAMS=deployments.apps,statefulsets.apps,daemonsets.apps,replicasets.apps,cronjobs.batch,jobs.batch,pods
# API version, kind, -namespace, name, -time of deletion, finalizers.
ROW='{.apiVersion} {.kind} -{.metadata.namespace} {.metadata.name} -{.metadata.deletionTimestamp} {.metadata.finalizers}'
readonly ROW
# From this round on a namespace is let go although something in it cannot even be listed.
readonly PATIENCE=6

dry_run=false
keep_registration=false
timeout=120
changes=0
round=1

usage() {
    cat <<'END'
Usage: force-cleanup-nvcf.sh [--dry-run] [--keep-registration] [--timeout SECONDS]

Removes NVCF's operator and agent, their workloads, custom resources, webhooks, roles and namespaces from the cluster of
kubectl's current context, also where finalizers are stuck. Try the ordered uninstall first.

  --dry-run            print what would be removed, and change nothing
  --keep-registration  keep the ConfigMap nvca-cluster-registration, and so the namespace nvca-operator:
                       an operator that is installed again takes up the same identity
  --timeout SECONDS    give up after so long (default 120)
  -h, --help           print this

Exit code: 0 nothing is left, 1 something is, 2 wrong usage.
END
}

say() { printf '%s\n' "$*"; }

fail() {
    printf 'force-cleanup-nvcf.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

misused() { fail "$1 (try --help)" 2; }

while (($#)); do
    case $1 in
        --dry-run) dry_run=true ;;
        --keep-registration) keep_registration=true ;;
        --timeout)
            (($# > 1)) || misused '--timeout needs a number of seconds'
            timeout=$2
            shift
            ;;
        --timeout=*) timeout=${1#*=} ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) misused "unknown argument: $1" ;;
    esac
    shift
done
[[ $timeout =~ ^[1-9][0-9]{0,5}$ ]] || misused "--timeout takes a whole number of seconds above 0, not '$timeout'"

scratch=$(mktemp -d) || fail 'no temporary folder can be made'
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# --- kubectl ---

cluster() { kubectl --request-timeout=20s "$@" </dev/null; }

# Shows what kubectl complained of. What is not there (any more) is no complaint.
complain() {
    local line
    while IFS= read -r line; do
        case $line in
            '' | *'(NotFound)'* | *"doesn't have a resource type"* | *'could not find the requested resource'*) ;;
            'Warning: Immediate deletion'* | Warning:*' is deprecated '* | 'No resources found'*) ;;
            Warning:*) say "    $line" >&2 ;;
            *)
                say "    kubectl: $line" >&2
                : >"$scratch/failed"
                ;;
        esac
    done
}

# `kubectl get`, with what goes wrong shown.
list() {
    cluster get "$@" 2>"$scratch/list"
    complain <"$scratch/list"
}

# A line for each object.
rows() { list "$@" -o "jsonpath={range .items[*]}$ROW{\"\\n\"}{end}"; }

# Says what is done, and does it.
change() {
    local what=$1
    shift
    changes=$((changes + 1))
    if $dry_run; then
        say "  would $what"
        return
    fi
    say "  $what"
    cluster "$@" >/dev/null 2>"$scratch/change"
    complain <"$scratch/change"
}

# Deletes the object of a row, and then strips its finalizers: nobody can add one any more.
remove() {
    local api kind namespace name deleted finalizers
    read -r api kind namespace name deleted finalizers <<<"$1"
    namespace=${namespace#-}
    # Kind.version.group, as kubectl takes it.
    local type=$kind.${api##*/}. what="$kind ${namespace:+$namespace/}$name"
    [[ $api != */* ]] || type+=${api%/*}
    set -- "$type" "$name" ${namespace:+-n "$namespace"}
    if [[ $kind == Pod ]]; then
        change "delete $what" delete "$@" --wait=false --force --grace-period=0
    elif [[ $deleted == - ]]; then
        change "delete $what" delete "$@" --wait=false
    fi
    # A definition's own finalizer goes when its objects have gone.
    if [[ -n $finalizers && $kind != CustomResourceDefinition ]]; then
        change "strip the finalizers of $what" patch "$@" --type=merge -p '{"metadata":{"finalizers":null}}'
    fi
}

remove_rows() {
    local row
    while IFS= read -r row; do
        remove "$row"
    done
}

# --- what is NVCF's ---

webhooks() {
    local kinds=validatingwebhookconfigurations,mutatingwebhookconfigurations
    rows "$kinds" --field-selector metadata.name=nvca
}

# Namespaces that are to go.
namespaces() {
    local name row
    for name in $NAMESPACES; do
        [[ $name == "$OPERATOR" ]] && $keep_registration && continue
        rows namespaces --field-selector "metadata.name=$name"
    done
    while IFS= read -r row; do
        case $(name_of "$row") in
            sr-*) say "$row" ;;
        esac
    done <<<"$(rows namespaces -l "$WORKLOAD")"
}

name_of() {
    local _api _kind _namespace name _rest
    read -r _api _kind _namespace name _rest <<<"$1"
    say "$name"
}

# Deployments before their pods, or the pods come back.
programs() {
    local row
    while IFS= read -r row; do
        [[ -z $row ]] || rows "$PROGRAMS" -n "$(name_of "$row")"
    done <<<"$(namespaces)"
    ! $keep_registration || rows "$PROGRAMS" -n "$OPERATOR"
}

definitions() {
    local row
    while IFS= read -r row; do
        case $(name_of "$row") in
            *.nvcf.nvidia.io) say "$row" ;;
        esac
    done <<<"$(rows customresourcedefinitions)"
}

custom_resources() {
    local row kinds=
    while IFS= read -r row; do
        [[ -z $row ]] || kinds+=,$(name_of "$row")
    done <<<"$(definitions)"
    [[ -z $kinds ]] || rows "${kinds#,}" -A
}

roles() {
    local row kinds=clusterroles,clusterrolebindings
    while IFS= read -r row; do
        case $(name_of "$row")/$row in
            nvca/* | "$OPERATOR"/* | *"\"$CLEANUP_FINALIZER\""*) say "$row" ;;
        esac
    done <<<"$(rows "$kinds")"
    # Those of the chart's hooks.
    while IFS= read -r row; do
        case $(name_of "$row")/$row in
            *"\"$CLEANUP_FINALIZER\""*) ;;
            "$OPERATOR"-*) say "$row" ;;
        esac
    done <<<"$(rows "$kinds" -l "$CHART")"
}

# What Helm remembers, and where the registration is kept, what else the chart has made.
release() {
    rows configmaps -n "$OPERATOR" --field-selector "metadata.name=$SENTINEL"
    rows secrets -n "$OPERATOR" --field-selector type=helm.sh/release.v1 -l "owner=helm,name=$OPERATOR"
    if $keep_registration; then
        local row
        while IFS= read -r row; do
            case $(name_of "$row") in
                '' | "$REGISTRATION" | "$SENTINEL") ;;
                *) say "$row" ;;
            esac
        done <<<"$(rows "$(kinds)" -n "$OPERATOR" -l "$CHART")"
    fi
}

# Every kind of object that a namespace can hold; events hold nothing up.
kinds() {
    local kind all=
    while IFS= read -r kind; do
        case $kind in
            '' | events | events.events.k8s.io) ;;
            *) all+=,$kind ;;
        esac
    done <<<"$(cluster api-resources --namespaced=true --verbs=list,delete,patch -o name 2>"$scratch/kinds")"
    complain <"$scratch/kinds"
    say "${all#,}"
}

# Node and label, a line each.
node_labels() {
    # shellcheck disable=SC2016 # the template's variables
    local template='{{range .items}}{{$node := .metadata.name}}{{range $label, $_ := .metadata.labels}}{{$node}} {{$label}}
{{end}}{{end}}' node label
    while read -r node label; do
        case $label in
            "$NODE_LABELS"*) say "$node $label" ;;
        esac
    done <<<"$(list nodes -o "go-template=$template")"
}

# --- steps ---

# Removes what a function finds.
step() {
    "$2" >"$scratch/step"
    if [[ -s $scratch/step ]]; then
        say "$1:"
        remove_rows <"$scratch/step"
    fi
}

remove_namespaces() {
    local all name deleted finalizers
    namespaces >"$scratch/namespaces"
    [[ -s $scratch/namespaces ]] || return
    say 'namespaces:'
    all=$(kinds)
    while read -r _ _ _ name deleted finalizers <&3; do
        remove "v1 Namespace - $name $deleted $finalizers"
        rows "$all" -n "$name" >"$scratch/contents"
        if $dry_run; then
            [[ $deleted == - ]] || change "let go of Namespace $name, which is being deleted already"
            describe '    with ' <"$scratch/contents"
        elif [[ $deleted != - ]]; then
            let_go "$name"
        fi
    done 3<"$scratch/namespaces"
}

# A namespace that is being deleted: what has finalizers is what it hangs on. Once it is empty it is finalized; after some
# patience also if nobody empties it, or something in it cannot be listed.
let_go() {
    local row
    while IFS= read -r row; do
        if [[ $row == *']' ]] || ((round >= PATIENCE)); then
            remove "$row"
        fi
    done <"$scratch/contents"
    if ((round >= PATIENCE)) || [[ ! -s $scratch/contents ]]; then
        printf '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"%s"},"spec":{"finalizers":[]}}' "$1" \
            >"$scratch/bare.json"
        change "finalize Namespace $1" replace --raw "/api/v1/namespaces/$1/finalize" -f "$scratch/bare.json"
    fi
}

remove_node_labels() {
    local node label
    node_labels >"$scratch/labels"
    [[ -s $scratch/labels ]] || return
    say 'labels of nodes:'
    while read -r node label <&3; do
        change "remove the label $label of Node $node" label node "$node" "$label-"
    done 3<"$scratch/labels"
}

sweep() {
    step 'webhooks' webhooks
    step 'programs and pods' programs
    step 'custom resources' custom_resources
    step 'cluster roles' roles
    step 'the Helm release' release
    remove_namespaces
    step 'definitions of custom resources' definitions
    remove_node_labels
}

# Rows as people read them.
describe() {
    local kind namespace name finalizers
    while read -r _ kind namespace name _ finalizers; do
        namespace=${namespace#-}
        say "$1$kind ${namespace:+$namespace/}$name${finalizers:+, finalizers $finalizers}"
    done
}

leftovers() {
    local find node label
    for find in webhooks programs custom_resources roles release namespaces definitions; do
        "$find" >"$scratch/left"
        describe '  ' <"$scratch/left"
    done
    node_labels >"$scratch/left"
    while read -r node label; do
        say "  Node $node, label $label"
    done <"$scratch/left"
}

# The last line, where something was done.
verdict() {
    if ((changes == 0)); then
        say 'Nothing to do: there is no trace of NVCF.'
    else
        say "$1"
    fi
}

# --- main ---

command -v kubectl >/dev/null || fail 'kubectl is not installed, or not in PATH'
cluster get --raw /version >/dev/null 2>"$scratch/version" ||
    fail "no cluster can be reached: $(<"$scratch/version")"
say "cluster: $(cluster config current-context 2>/dev/null || say 'of this pod')"
if $keep_registration; then
    phase=$(list namespaces --field-selector "metadata.name=$OPERATOR" -o 'jsonpath={.items[*].status.phase}')
    [[ $phase != Terminating ]] || fail "the namespace $OPERATOR is being deleted already, and its registration with it: \
save it (kubectl get configmap $REGISTRATION -n $OPERATOR -o yaml), and run this without --keep-registration"
fi

sweep
if $dry_run; then
    verdict 'This was a dry run: nothing was changed.'
    exit 0
fi
while :; do
    rm -f "$scratch/failed"
    left=$(leftovers)
    [[ -n $left ]] || break
    ((SECONDS < timeout)) || break
    round=$((round + 1))
    sleep 2
    sweep
done
if [[ -n $left ]]; then
    say "Not removed within $timeout s:"
    say "$left"
    exit 1
fi
[[ ! -e $scratch/failed ]] || fail 'not everything could be looked at: see above'
verdict 'Done: there is no trace of NVCF any more.'
