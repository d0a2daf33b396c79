#!/usr/bin/env bash
# The first hour with pictures of one's own, from a clone to a generator that could be published.
#
#     examples/first_hour.sh PHOTOS [MINUTES] [FOLDER]
#
# PHOTOS is a folder or an archive of pictures. Everything is written to FOLDER, by default first_hour: an environment,
# the run, a report, samples and an export. Nothing is uploaded.
set -euo pipefail
photos=$(realpath "$1") minutes=${2:-60} folder=${3:-first_hour}
cd "$(dirname "$0")/.."

python3 -m venv "$folder/env"
# shellcheck disable=SC1091
source "$folder/env/bin/activate"
pip install -c constraints.txt '.[playground]'

equipoise train auto "$folder/run" data="$photos" minutes="$minutes"
equipoise report "$folder/run"
equipoise sample "$folder/run/best" --num 100 --out "$folder/samples.png"
equipoise export "$folder/run" --to hub-folder --with-discriminator --out "$folder/export"
equipoise push "$folder/export" you/mine --dry-run
echo "next: equipoise show $folder/run"
