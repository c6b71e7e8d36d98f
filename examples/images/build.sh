#!/bin/sh
# Builds the example job images: build.sh [--cache DIR] KIND TAG [KIND TAG ...]
# KIND is recorder or transcriber; the engine is the one of DOCKER_HOST.
# --cache keeps the base's root file system in DIR, for engines that forget.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
label=org.offloader.example.recipe
cache=

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

usage() {
    echo "usage: build.sh [--cache DIR] recorder|transcriber TAG [recorder|transcriber TAG ...]" >&2
    exit 2
}

# One hash over what the files given hold, their names and whether they may be run.
recipe() {
    (cd "$here" && find "$@" -type f ! -path '*__pycache__*' ! -name 'test_*' -printf '%p %04m\n' | LC_ALL=C sort |
        while read -r file mode; do
            case $mode in *[1357]*) echo x ;; *) echo - ;; esac
            echo "$file"
            sha256sum <"$file"
        done | sha256sum | cut -c 1-16)
}

# The recipe an image was built by; nothing when there is no such image.
recipe_of() {
    docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null || true
}

make_tar() {
    for tool in debootstrap apt-get chroot; do
        command -v "$tool" >/dev/null ||
            fail "$tool is missing; on Debian: apt-get install debootstrap"
    done
    [ "$(id -u)" = 0 ] || fail "making the base image needs root (debootstrap, chroot)"
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/offloader-example-base.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    chmod 755 "$work"
    mkdir "$work/root"
    "$here/common/base.sh" "$work/root" >&2
    echo "base: packing" >&2
    tar -C "$work/root" --one-file-system --numeric-owner --sort=name \
        ${SOURCE_DATE_EPOCH:+--mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime} \
        --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -cf "$1.part" .
    mv "$1.part" "$1"
    rm -rf "$work"
    trap - EXIT HUP INT TERM
}

build_base() {
    # Two builds at a time would do the same work twice.
    exec 9>"${TMPDIR:-/var/tmp}/offloader-example-base.lock"
    flock 9
    if [ "$(recipe_of "$base")" != "$base_recipe" ]; then
        dir=${cache:-${TMPDIR:-/var/tmp}}
        mkdir -p "$dir"
        tar="$dir/offloader-example-base-$base_recipe.tar"
        [ -f "$tar" ] || make_tar "$tar"
        echo "base: importing" >&2
        docker import --change "LABEL $label=$base_recipe" "$tar" "$base" >/dev/null
        [ -n "$cache" ] || rm -f "$tar"
    fi
    exec 9>&-
}

build_image() {
    kind=$1 tag=$2
    hash=$(recipe build.sh common "$kind")
    [ "$(recipe_of "$tag")" = "$hash" ] || {
        build_base
        # The old builder needs no plugin beside the docker command.
        said=$(DOCKER_BUILDKIT=0 docker build --file "$here/$kind/Dockerfile" \
            --build-arg "BASE=$base" --label "$label=$hash" --tag "$tag" "$here" 2>&1) || {
            echo "$said" >&2
            fail "building $tag failed"
        }
    }
    docker image inspect --format "$tag {{.Id}} {{.Size}}" "$tag"
}

if [ "${1:-}" = --cache ]; then
    [ $# -ge 2 ] || usage
    cache=$2
    shift 2
fi
[ $# -ge 2 ] && [ $(($# % 2)) = 0 ] || usage

docker version >/dev/null 2>&1 ||
    fail "no container engine answers at ${DOCKER_HOST:-its usual place}, or docker is missing"
base_recipe=$(recipe common/base.sh common/packages.txt)
base=offloader-example-base:$base_recipe
while [ $# -gt 0 ]; do
    case $1 in
    recorder | transcriber) build_image "$1" "$2" ;;
    *) usage ;;
    esac
    shift 2
done
