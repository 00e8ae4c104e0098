#!/usr/bin/env bash
# Runs one study on a TPU pod slice: requests the slice, waits for it, installs this repository on
# every host and runs main there with --distributed, all hosts on one cell at a time. Run it again to
# resume: it uses an existing slice, and requests a new one in place of a preempted one.
#
#   launch/tpu_pod.sh --project=P --zone=europe-west4-b --type=v5litepod-16 --nfs=10.0.0.2:/share \
#       -- --config=configs/ddpmpp.py --workdir=/mnt/reprojax/ddpmpp
#   launch/tpu_pod.sh --project=P --zone=europe-west4-b --delete
#
# Needs gcloud with a login. Run it from the root of the repository. The workdir must be on a POSIX
# file system that every host can reach, such as Filestore, which --nfs mounts at /mnt/reprojax. A
# bucket mounted by gcsfuse cannot be a workdir, since claims and checkpoints rely on exclusive
# creation, appending and the renaming of folders, but it can hold images (--config.data.path).
set -euo pipefail

usage() {
  cat <<EOF
usage: launch/tpu_pod.sh --zone=Z [options] -- FLAGS OF reprojax.main
       launch/tpu_pod.sh --zone=Z [options] --delete
  --project=P    Google Cloud project           [PROJECT, else gcloud's own]
  --zone=Z       zone                           [ZONE]
  --name=N       name of slice and request      [NAME, else reprojax]
  --type=T       accelerator type               [TYPE, else v5litepod-16]
  --version=V    runtime version of the hosts   [VERSION, else v2-alpha-tpuv5-lite]
  --nfs=IP:/DIR  export to mount at /mnt/reprojax on every host  [NFS, else none]
  --spot         request a slice that may be preempted
  --delete       delete the slice and exit
EOF
}

fail() {
  echo "tpu_pod: $1" >&2
  exit 2
}

project=${PROJECT:-} zone=${ZONE:-} name=${NAME:-reprojax} type=${TYPE:-v5litepod-16}
version=${VERSION:-v2-alpha-tpuv5-lite} nfs=${NFS:-} spot="" delete=""
while [[ $# -gt 0 ]]; do
  case $1 in
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --nfs=*) nfs=${1#*=} ;;
    --spot) spot=1 ;;
    --delete) delete=1 ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) fail "no option $1; --help lists them, and flags of reprojax.main follow after --" ;;
  esac
  shift
done
[[ -n $zone ]] || fail "--zone is missing"
if [[ -z $delete && ("$*" != *--config=* || "$*" != *--workdir=*) ]]; then
  fail "after -- main needs --config=FILE[:scale] and --workdir=DIR"
fi
command -v gcloud >/dev/null || fail "gcloud is not installed"

stderr=$(mktemp) archive=$(mktemp)
trap 'rm -f "$stderr" "$archive"' EXIT
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")

queued_resources() { gcloud compute tpus queued-resources "$@" "${where[@]}"; }
state() { queued_resources describe "$name" --format="value(state.state)" 2>"$stderr" || true; }
on_all() { gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

if [[ -n $delete ]]; then
  queued_resources delete "$name" --force --quiet
  exit
fi

now=$(state)
if [[ $now == SUSPENDED || $now == FAILED ]]; then # preempted, or never started
  echo "the slice is $now: requesting another"
  queued_resources delete "$name" --force --quiet
  now=""
fi
if [[ -z $now ]]; then
  tier=()
  [[ -z $spot ]] || tier=(--spot)
  queued_resources create "$name" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$version" ${tier[@]+"${tier[@]}"}
fi
unknown=0
while now=$(state) && [[ $now != ACTIVE ]]; do
  if [[ $now == FAILED || $now == SUSPENDED ]]; then
    echo "tpu_pod: the request ended as $now; run this script again for a new request" >&2
    exit 1
  fi
  [[ -n $now ]] || unknown=$((unknown + 1))
  if [[ $unknown -gt 10 ]]; then
    echo "tpu_pod: gcloud does not report the state of $name: $(tail -n 1 "$stderr")" >&2
    exit 1
  fi
  echo "waiting for the slice: ${now:-unknown}"
  sleep "${POLL_SECONDS:-30}"
done

# Only the files that git tracks: no results, and no environment of this machine.
git archive --format=tar.gz -o "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:reprojax.tar.gz" "${where[@]}" --worker=all
mount=":"
if [[ -n $nfs ]]; then
  mount="sudo apt-get install -y -qq nfs-common && sudo mkdir -p /mnt/reprojax"
  mount+=" && { mountpoint -q /mnt/reprojax || sudo mount -t nfs $(printf %q "$nfs") /mnt/reprojax; }"
  mount+=" && sudo chmod 1777 /mnt/reprojax"
fi
on_all "set -e; $mount; mkdir -p reprojax; tar -xzf reprojax.tar.gz -C reprojax
[ -x ~/.local/bin/uv ] || curl -LsSf https://astral.sh/uv/install.sh | sh # hosts may have Python 3.10
~/.local/bin/uv venv -q --allow-existing --python 3.12 reprojax/.venv
~/.local/bin/uv pip install -q -U --python reprojax/.venv/bin/python 'jax[tpu]' -e reprojax"

# After a lost connection main may still run on a host and hold the chips: stop it, which saves.
on_all "pids=\$(pgrep -f '[r]eprojax.main' || true)
[ -z \"\$pids\" ] || { kill -TERM \$pids; for i in \$(seq 120); do kill -0 \$pids 2>/dev/null || break; sleep 1; done; }"
on_all "cd reprojax && .venv/bin/python -m reprojax.main $(printf '%q ' "$@")--distributed"
