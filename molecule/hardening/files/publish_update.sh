#!/bin/bash
# A security archive on this host, with one package, so that a test decides what is pending.
#
#   publish-update VERSION             publish this version; the package lists have it afterwards
#   publish-update VERSION --install   the same, and it is installed
#
# Release has the origin, label, suite and codename of the distribution's own security archive.
set -euo pipefail
archive=/var/local/security-archive
version=$1
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mkdir -p "$archive"
cd "$archive"

work=$(mktemp -d)
mkdir "$work/DEBIAN"
printf '%s\n' 'Package: leaky' "Version: $version" 'Architecture: all' 'Maintainer: x <x@x>' \
  'Section: misc' 'Priority: optional' 'Description: has a hole in every version' >"$work/DEBIAN/control"
dpkg-deb --build "$work" "leaky_${version}_all.deb" >/dev/null
rm -r "$work"

package=leaky_${version}_all.deb
{
  dpkg-deb --field "$package"
  echo "Filename: ./$package"
  echo "Size: $(stat -c %s "$package")"
  echo "SHA256: $(sha256sum <"$package" | cut -d' ' -f1)"
} >Packages
cat >Release <<RELEASE
Origin: Debian
Label: Debian-Security
Suite: $codename-security
Codename: $codename-security
Date: $(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')
SHA256:
 $(sha256sum <Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages
RELEASE

list=/etc/apt/sources.list.d/security-of-the-test.list
echo "deb [trusted=yes] file:$archive ./" >"$list"
# The machine's own apt-daily may be reading the lists.
for try in $(seq 20); do
  ! apt-get -qq update -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=/dev/null \
    -o APT::Get::List-Cleanup=0 || break
  [ "$try" -lt 20 ] || exit 1
  sleep 3
done
[ "${2:-}" != --install ] || dpkg --install "$package"
