#!/bin/sh
# Installs the Debian packages named as arguments, without starting the daemons in them. `cargo xtask setup` calls it.
#
# While it runs, policy-rc.d forbids starting services: a routing daemon that tests start in namespaces of their own must
# not run on the machine. The file goes away however this ends; one that is there already is left alone.
# --no-remove: nothing that the user has is removed for us.
set -eu

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT PIPE TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends --no-remove --quiet \
    -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"

# Nor at the next boot. These packages were not there before, so nobody relies on their services.
command -v systemctl > /dev/null || exit 0
for package in "$@"; do
    case "$package" in
        bird2) systemctl disable --quiet bird.service || true ;;
        frr) systemctl disable --quiet frr.service || true ;;
    esac
done
