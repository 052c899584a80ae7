#!/bin/sh
# PyTorch for an environment, before pip installs the rest: sh scripts/torch.sh PYTHON BUILD [-c FILE]
# BUILD is cpu, cu126, auto or another that uv has for its --torch-backend; uv knows where each is. Or it is pip: then
# pip takes what it finds, on Linux a build with CUDA. `default` is cpu on Linux without an NVIDIA driver, else pip.
python=$1 build=$2 asked=$2
shift 2
cuda="pip takes PyTorch as it finds it, on Linux with CUDA: .venv will have 6.7 GB"

has_driver() {
  command -v nvidia-smi >/dev/null || [ -e /proc/driver/nvidia ] || [ -e /usr/lib/wsl/lib/nvidia-smi ]
}
has_own_sources() {  # that somebody has set up: a mirror, a folder of packages, versions
  "$python" -m pip config list | grep -E 'index|find-links|constraint' >/dev/null
}
install_by_uv() {
  "$python" -m pip install --quiet --disable-pip-version-check uv &&
    "$python" -m uv pip install --quiet --python "$python" --no-deps --torch-backend "$build" "$@" torch
  ended=$?
  "$python" -m pip uninstall --quiet --yes uv
  return $ended
}

if [ "$build" = default ]; then
  if has_own_sources; then
    echo "pip takes PyTorch as it is set up to; TORCH=cpu takes the build for the CPU (.venv: 2.2 GB)."
    exit
  fi
  if has_driver || [ "$(uname -s)" != Linux ]; then build=pip; else build=cpu; fi
fi
case $build in
pip) echo "$cuda (with TORCH=cpu 2.2 GB)." && exit ;;
cpu) echo "PyTorch's build for the CPU: .venv will have 2.2 GB (with TORCH=pip, on Linux with CUDA, 6.7 GB)." ;;
*) echo "PyTorch's build $build." ;;
esac
if [ "$asked" = default ]; then
  echo "There is no NVIDIA driver here, so TORCH=cpu."
  install_by_uv "$@" 2>/dev/null || echo "PyTorch's own packages cannot be reached: $cuda."
elif ! install_by_uv "$@"; then
  echo "TORCH=$build is not to be had: see above. Without TORCH pip takes what it finds." >&2
  exit 1
fi
