#!/usr/bin/env bash
# Test and measure everything on a CUDA GPU, within eight minutes, most important first:
#
#     bash benchmarks/gpu.sh [OUT]              # OUT: folder of the tables, benchmarks/results/gpu
#     bash benchmarks/gpu.sh --rehearse OUT     # small sizes on a CPU, kernels interpreted
#
# A python3 that has torch and Triton and sees the GPU is used as it is (see gpu_packages.py), else
# .venv is set up. Each part writes its tables while it runs and has a time limit of its own, so
# that a part that is cut still leaves numbers and does not stop the next; what a part leaves over
# goes to the later ones. OUT/parts.md says how the parts ended. Exit status: 0 if all of them
# ended well, 1 if one failed or was cut, 2 if there is no GPU or no environment.
set -uo pipefail

total_s=460 # the rest of the eight minutes is for parts that do not end when they are told to
rehearse=()
if [[ ${1:-} == --rehearse ]]; then
  rehearse=(--rehearse)
  export TRITON_INTERPRET=1 OMP_NUM_THREADS=1
  shift
  : "${1:?a rehearsal needs a folder for its tables}"
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${1:-$root/benchmarks/results/gpu}" || exit 2
out=$(cd "${1:-$root/benchmarks/results/gpu}" && pwd)
cd "$root" || exit 2
export PYTHONUNBUFFERED=1
unset SIXFOLD_KERNELS

usable() { # python: return whether it has torch and Triton and, unless rehearsing, sees a GPU
  "$1" -c 'import sys, torch, triton; sys.exit(not (sys.argv[1:] or torch.cuda.is_available()))' \
    "${rehearse[@]}" 2>/dev/null
}

if usable python3; then
  python=python3
  sources=$root/build/gpu-packages
  for source in kernels/src packages/*/src; do sources+=:$root/$source; done
  export PYTHONPATH=$sources${PYTHONPATH:+:$PYTHONPATH}
  timeout 120 python3 benchmarks/gpu_packages.py || echo "gpu: parts that need them will fail"
else
  python=.venv/bin/python
  timeout 300 make --silent setup || exit 2
  if ! usable $python; then
    echo "gpu: no CUDA GPU here; bash benchmarks/gpu.sh --rehearse OUT runs on a CPU" >&2
    exit 2
  fi
fi

failed=0
printf '# Parts of `bash benchmarks/gpu.sh`\n\n| part | seconds | limit, s | ended |\n| --- | --- | --- | --- |\n' >"$out/parts.md"

part() { # script, percent of the time that is left: run it, and note how it ended
  local limit=$(((total_s - SECONDS) * $2 / 100)) began=$SECONDS status=0 ended=well
  if ((limit < 1)); then
    ended="not run: no time left"
  else
    echo "gpu: $1, at most $limit s"
    timeout --kill-after=10 "$limit" "$python" "benchmarks/$1.py" "${rehearse[@]}" --out "$out" || status=$?
    case $status in
      0) ;;
      124 | 137) ended="cut at its limit" ;;
      *) ended="failed, exit status $status" ;;
    esac
  fi
  [[ $ended == well ]] || failed=1
  printf '| %s | %s | %s | %s |\n' "$1" $((SECONDS - began)) "$limit" "$ended" >>"$out/parts.md"
  echo "gpu: $1: $ended"
}

part kernel_tests_gpu 40
part kernels_gpu 50
part systems_gpu 100
cat "$out/parts.md"
exit $failed
