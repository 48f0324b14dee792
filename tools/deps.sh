#!/usr/bin/env bash
# Installs the packages that sluice needs, on Debian 12, Debian 13 and Ubuntu 24.04.
#
#   tools/deps.sh build|run|test|check|bench|fresh|all [...]
#   tools/deps.sh --list GROUP      print the packages of a group, install nothing
#   tools/deps.sh --entry SUITE     print the machine's own apt entry of a suite (URI, keyring)
#
# Works as root or through sudo. A group whose packages are all installed costs one dpkg-query
# and never touches apt. libyyjson-dev and libllhttp-dev are neither in Debian 12 nor in Ubuntu
# 24.04; there the next release (Debian 13, Ubuntu 26.04) is added as a second suite, pinned so low
# that apt takes from it only what the system lacks. Both packages need only the old C library. The
# entry is derived from the machine's own, so mirrors and keyrings stay as they are.
set -euo pipefail

say() { printf 'deps: %s\n' "$*"; }
die() { printf 'deps: error: %s\n' "$*" >&2; exit 1; }

BUILD="build-essential pkg-config meson ninja-build python3 git
       libuv1-dev libllhttp-dev libyyjson-dev libxxhash-dev libyaml-dev"
RUN="$BUILD curl ca-certificates"
TEST="$RUN libcmocka-dev python3-venv openssl nodejs npm"
CHECK="$TEST clang clang-format clang-tidy @clang-rt llvm valgrind"
BENCH="$RUN python3-venv nginx haproxy"
FRESH="git debootstrap"
# The only packages that may come from a second suite.
SECOND_SUITE="libyyjson-dev libllhttp-dev"

os_field() { (. /etc/os-release && eval "printf '%s' \"\${$1:-}\""); }

# Sets what is tied to the release: its second suite (none: empty), the component in it, and how
# apt's plans name the two releases.
know_system() {
    second_name='' second_component=main own_mark='' second_mark=''
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        die "apt and dpkg are needed (Debian 12, Debian 13 or Ubuntu 24.04)"
    case "$(os_field ID) $(os_field VERSION_ID)" in
    "debian 12") second_name=trixie own_mark=Debian:12 second_mark=Debian:13 ;;
    "debian 13") ;;
    "ubuntu 24.04")
        second_name=resolute second_component=universe
        own_mark=Ubuntu:24.04 second_mark=Ubuntu:26.04
        ;;
    *) say "note: $(os_field PRETTY_NAME) was not tried; going on as on Debian 13" ;;
    esac
}

packages_of() {
    case "$1" in
    build) echo $BUILD ;;
    run) echo $RUN ;;
    test) echo $TEST ;;
    check) echo $CHECK ;;
    bench) echo $BENCH ;;
    fresh) echo $FRESH ;;
    all) echo $CHECK $BENCH $FRESH ;;
    *) die "unknown group '$1' (build, run, test, check, bench, fresh, all)" ;;
    esac
}

# All installed packages, asked once: a group that is complete must cost next to nothing.
installed() {
    [ -n "${have:-}" ] ||
        have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed / /p')
    [[ $'\n'"$have"$'\n' == *$'\n'" $1"$'\n'* ]]
}

clang_runtime() {
    local pattern
    for pattern in /usr/lib/llvm-*/lib/clang/*/lib/linux /usr/lib/clang/*/lib/linux; do
        compgen -G "$pattern/libclang_rt.fuzzer-*.a" >/dev/null && return 0
    done
    return 1
}

# A tool may be there without its package: a newer Node.js brings its own npm.
satisfied() {
    case "$1" in
    npm) installed npm || { command -v node && command -v npm; } >/dev/null 2>&1 ;;
    @clang-rt) clang_runtime ;;
    *) installed "$1" ;;
    esac
}

missing_of() {
    local package
    for package in "$@"; do
        satisfied "$package" || echo "$package"
    done | sort -u
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root or sudo is needed to install packages"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}

apt_update() {
    local try
    say "refreshing the package lists"
    for try in 1 2 3 4 5; do
        # Another apt may hold the list lock, for which apt-get has no waiting option.
        if apt_get update >"$scratch/update.log" 2>&1; then
            return 0
        fi
        sleep $((try * 2))
    done
    cat "$scratch/update.log" >&2
    die "apt-get update failed"
}

# Prints "URIs<TAB>signed-by" of the machine's entry for suite $1, from deb822 or one-line files.
debian_entry() {
    local suite=$1 file
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        awk -v suite="$suite" '
            BEGIN { RS = ""; FS = "\n" }
            {
                uris = ""; signed = ""; hit = 0; off = 0
                for (i = 1; i <= NF; i++) {
                    if ($i ~ /^#/) continue
                    key = tolower($i); sub(/:.*/, "", key)
                    value = $i; sub(/^[^:]*:[ \t]*/, "", value)
                    if (key == "uris") uris = value
                    if (key == "signed-by" && value != "") signed = value
                    if (key == "enabled" && tolower(value) ~ /^(no|false|0)/) off = 1
                    if (key == "suites") {
                        n = split(value, names, /[ \t]+/)
                        for (j = 1; j <= n; j++) if (names[j] == suite) hit = 1
                    }
                }
                if (hit && !off && uris != "") { print uris "\t" signed; exit }
            }' "$file"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        awk -v suite="$suite" '
            $1 == "deb" {
                signed = ""
                line = $0
                if (match(line, /\[[^]]*\]/)) {
                    options = substr(line, RSTART + 1, RLENGTH - 2)
                    line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                    n = split(options, words, /[ \t]+/)
                    for (i = 1; i <= n; i++)
                        if (words[i] ~ /^signed-by=/) signed = substr(words[i], 11)
                }
                split(line, field, /[ \t]+/)
                if (field[3] == suite) { print field[2] "\t" signed; exit }
            }' "$file"
    done
}

candidate_of() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ { print $2 }'; }

no_candidate() {
    local found
    found=$(candidate_of "$1")
    [ -z "$found" ] || [ "$found" = "(none)" ]
}

write_second_suite() {
    local entry uris signed
    entry=$(debian_entry "$(os_field VERSION_CODENAME)" | head -n 1)
    [ -n "$entry" ] || die "no apt entry for suite $(os_field VERSION_CODENAME) found to derive" \
        "$second_name from; install by hand: $SECOND_SUITE"
    uris=${entry%%$'\t'*}
    signed=${entry#*$'\t'}
    say "adding suite $second_name (priority 100, all else 1) for: $SECOND_SUITE"
    {
        echo "# Written by sluice tools/deps.sh for: $SECOND_SUITE"
        echo "Types: deb"
        echo "URIs: $uris"
        echo "Suites: $second_name"
        echo "Components: $second_component"
        [ -z "$signed" ] || echo "Signed-By: $signed"
    } >"$scratch/sources"
    {
        echo "# Written by sluice tools/deps.sh: only what the system lacks may come from here."
        printf 'Package: libyyjson* libllhttp*\nPin: release n=%s\nPin-Priority: 100\n\n' \
            "$second_name"
        printf 'Package: *\nPin: release n=%s\nPin-Priority: 1\n' "$second_name"
    } >"$scratch/preferences"
    # The pin goes first, so that no moment exists at which the suite is there unpinned.
    as_root install -D -m 644 "$scratch/preferences" \
        "/etc/apt/preferences.d/sluice-$second_name.pref"
    as_root install -D -m 644 "$scratch/sources" \
        "/etc/apt/sources.list.d/sluice-$second_name.sources"
}

# Adds the second suite when one of its packages is wanted and the machine's own suites lack it.
offer_second_suite() {
    local package wanted=""
    [ -n "$second_name" ] || return 0
    for package in $SECOND_SUITE; do
        case " $* " in *" $package "*) no_candidate "$package" && wanted=yes ;; esac
    done
    [ -n "$wanted" ] || return 0
    write_second_suite
    apt_update
}

# The compiler runtime's package carries clang's major version in its name.
resolve() {
    local package version
    for package in "$@"; do
        if [ "$package" = @clang-rt ]; then
            version=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\).*/\1/p' |
                head -n 1)
            [ -n "$version" ] || die "cannot tell the version of clang"
            echo "libclang-rt-$version-dev"
        else
            echo "$package"
        fi
    done
}

check_candidates() {
    local package lacking=""
    for package in "$@"; do
        no_candidate "$package" && lacking="$lacking $package"
    done
    [ -z "$lacking" ] && return 0
    [ "$(os_field ID)" = ubuntu ] && say "on Ubuntu the component 'universe' must be enabled"
    die "not available from this machine's apt sources:$lacking"
}

# Only the two packages and their own libraries may come from the second suite; above all the C
# library must stay the distribution's own. Looks at apt's plan before anything is done.
refuse_foreign_packages() {
    local plan foreign
    plan=$(apt-get -s --no-install-recommends install "$@") || die "apt cannot install: $*"
    foreign=$(awk -v own=" $own_mark" -v second=" $second_mark" '
        /^Inst / && index($0, second) && !index($0, own) && $2 !~ /^lib(yyjson|llhttp)/ {
            print $2
        }' <<<"$plan")
    [ -z "$foreign" ] || die "refused: these would come from $second_name:" $foreign
}

# Servers that come as packages (nginx, haproxy) must not start as services of this machine.
hold_services() {
    [ -e /usr/sbin/policy-rc.d ] && return 0
    printf '#!/bin/sh\nexit 101\n' >"$scratch/policy"
    as_root install -m 755 "$scratch/policy" /usr/sbin/policy-rc.d
    held_services=yes
}

release() {
    [ -z "${held_services:-}" ] || as_root rm -f /usr/sbin/policy-rc.d
    rm -rf "$scratch"
}

# apt says several lines a package; one in 40 is progress enough.
progress() {
    local line count=0
    while IFS= read -r line; do
        case "$line" in
        Get:* | Unpacking* | "Setting up"*)
            [ $((count++ % 40)) != 0 ] || say "  $line" ;;
        esac
    done
}

install_missing() {
    local names
    apt_update
    offer_second_suite "$@"
    names=$(resolve "$@")
    check_candidates $names
    [ -z "$second_name" ] || refuse_foreign_packages $names
    hold_services
    say "installing:" $names
    if ! apt_get install -y --no-install-recommends $names 2>&1 | tee "$scratch/install.log" |
        progress; then
        tail -n 40 "$scratch/install.log" >&2
        die "apt-get install failed"
    fi
}

main() {
    local group wanted="" missing
    [ $# -gt 0 ] || set -- build
    if [ "$1" = --list ]; then
        packages_of "${2:-build}"
        return
    elif [ "$1" = --entry ]; then
        debian_entry "$2" | head -n 1
        return
    fi
    for group in "$@"; do
        wanted="$wanted $(packages_of "$group")"
    done
    know_system
    installed dpkg
    missing=$(missing_of $wanted)
    if [ -z "$missing" ]; then
        say "$*: everything is installed"
        return
    fi
    scratch=$(mktemp -d)
    trap release EXIT
    say "$*: missing:" $missing
    install_missing $missing
    have=
    missing=$(missing_of $missing)
    [ -z "$missing" ] || die "still missing:" $missing
    say "$*: done"
}

main "$@"
