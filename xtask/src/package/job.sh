#!/bin/sh
# What the machine of `cargo xtask package` does: install, use, upgrade, start again, remove and purge the package. One line
# for each thing that must hold, "ok ..." or "FAILED ...".
# ttyS0 is the console, ttyS1 these lines, ttyS2 what the commands said, ttyS3 the journal.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER= SYSTEMD_COLORS=0
cd "$(dirname "$0")" || exit
for tty in 1 2 3; do stty -F /dev/ttyS$tty raw -echo; done
exec </dev/null >/dev/ttyS1 2>/dev/ttyS2

# What outlives a start, of the job's own.
kept=/root/kept
mkdir -p $kept
config=/etc/observer/observer.yaml
archive=/var/log/observer/alerts.json
address=127.0.0.1:9736
# The five of docs/deploy.md.
capabilities=000000c000880004
# What the unit bounds it by: AUDIT_READ as well, which is for the start alone. (To take that away, too, would need SETPCAP.)
bounding=000000e000880004

# must NAME COMMAND...: the command must end well. What it says goes to the record, and into the line if it fails.
must() {
  local what=$1
  shift
  echo "--- $(cut -d ' ' -f 1 /proc/uptime) $what: $*" >&2
  if "$@" >/tmp/said 2>&1; then
    echo "ok $what"
  else
    echo "FAILED $what ($*): $(tail -n 4 /tmp/said | tr '\n' ' ')"
    echo "$what" >>$kept/failed
  fi
  cat /tmp/said >&2
}

# not COMMAND...: for `must` and `soon`, which take no `!`.
not() { ! "$@"; }

# soon COMMAND...: within a minute, and more where commands are slow.
soon() {
  for _ in $(seq 60); do
    "$@" && return
    sleep 1
  done
  return 1
}

is() { [ "$1" = "$2" ] || { echo "$1, not $2"; false; }; }
get() { curl --fail --silent --show-error --max-time 20 "http://$address/$1"; }
ready() { get readyz && systemctl is-active observer; }
property() { systemctl show --value --property="$1" observer; }
agent() { property MainPID; }
is_new_agent() { [ "$(agent)" != 0 ] && [ "$(agent)" != "$1" ] && ready; }
# The sum of a family's series that have the label.
metric() { get metrics | awk -v family="$1" -v label="${2:-}" 'index($1, family) == 1 && (label == "" || index($0, label)) { n += $NF } END { print n + 0 }'; }
alerts() { metric observer_alerts_total; }
backlog() { metric observer_sink_backlog '"siem"'; }
log() { journalctl --unit=observer --output=cat --no-pager; }
# Nothing of this sort in what the agent and systemd say of the service.
no_trouble() { not grep -E '^[0-9TZ:.-]+ (error|warn) |Failed|failed' "$1"; }
told() { log | grep '"rule":"namespace.escape"' | grep -c "\"id\":\"$1\""; }
told_more() { [ "$(told "$1")" -gt "$2" ]; }
archived() { grep '"rule":"namespace.escape"' $archive | grep "\"id\":\"$1\""; }
listed() {
  local name
  for name; do observer ps --json | grep "\"id\": *\"$name\"" || return; done
}
settled() { ready >/dev/null && for _ in 1 2 3; do listed "$@" || return; done; }
version() { dpkg-query --show --showformat='${Version} ${db:Status-Abbrev}' observer; }
same_config() { sha256sum --check --quiet $kept/config; }
private() { is "$(stat -c '%a %U:%G' "$1")" "$2 root:root"; }

# Each thread of the agent's, its sets and its filter.
confined() {
  local thread field
  for thread in "/proc/$(agent)/task"/*; do
    for field in CapEff CapPrm; do
      is "$field $(sed -n "s/^$field:\t//p" "$thread/status")" "$field $capabilities" || return
    done
    is "CapBnd $(sed -n "s/^CapBnd:\t//p" "$thread/status")" "CapBnd $bounding" || return
    for field in CapInh CapAmb; do
      is "$field $(sed -n "s/^$field:\t//p" "$thread/status")" "$field 0000000000000000" || return
    done
    grep -qx 'NoNewPrivs:	1' "$thread/status" && grep -qx 'Seccomp:	2' "$thread/status" || return
  done
}

# Everything below the root directory that a package could leave behind, without what apt, dpkg and systemd keep of all packages.
listing() {
  find / -xdev \( -path /root -o -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/log/journal \
    -o -path /var/lib/apt -o -path /var/lib/dpkg/updates -o -path /var/lib/systemd/random-seed \
    -o -path /var/lib/systemd/timers \) -prune \
    -o -not -path '/var/log/*' -not -path '/var/lib/dpkg/*-old' -print | LC_ALL=C sort
  find /var/log -iname '*observer*'
}

# What has come since.
additions() { listing | LC_ALL=C comm -13 $kept/before -; }

# As an administrator, or a service of the system's, starts them; the file tree is busybox alone.
bundle() {
  mkdir -p "/run/$1/rootfs/bin" "/run/$1/rootfs/dev" "/run/$1/rootfs/proc"
  cp "$1.json" "/run/$1/config.json"
  cp /bin/busybox "/run/$1/rootfs/bin/busybox"
  for applet in sh sleep nsenter; do ln -s busybox "/run/$1/rootfs/bin/$applet"; done
}
# detached NAME OPTION...: what it says goes to a file, because the container keeps that open.
detached() {
  local name=$1
  shift
  runc "$@" run --detach --bundle "/run/$name" "$name" </dev/null >/tmp/runc 2>&1 || { cat /tmp/runc; false; }
}
# Into the host's namespaces, of which process 1 has all.
escape() { runc exec "$1" nsenter -t 1 -m -n -u -i sh -c true; }

installation() {
  listing >$kept/before
  sha256sum /etc/passwd /etc/group /etc/shadow >$kept/users
  must "apt installs it" apt-get install --yes ./first.deb
  must "it is enabled" is "$(systemctl is-enabled observer)" enabled
  additions >/tmp/new
  must "what it brings is seen" is 3 "$(grep -cE '^(/usr/bin/observer|/etc/systemd/.*/observer.service|/var/lib/observer)$' /tmp/new)"
  must "it is armed" soon ready
  must "systemctl status" systemctl status --no-pager observer
  must "it runs as the unit says" is "$(property Restart) $(property Type) $(property NeedDaemonReload)" "on-failure exec no"
  must "the metrics say that it is armed" is "$(metric observer_ready)" 1
  must "observer check" observer check
  must "observer ps asks the agent" sh -c 'observer ps --json | grep "\"source\": *\"agent\""'
  must "the unit's capabilities and a filter, in every thread" confined
  must "the configuration is root's alone" private $config 600
  for dir in /run/observer /var/lib/observer /var/log/observer; do must "$dir is root's alone" private $dir 700; done
  must "systemd-analyze verify" sh -c 'systemd-analyze verify observer.service 2>&1 | { ! grep observer; }'
  score=$(systemd-analyze security --no-pager observer.service | tail -n 1 | sed 's/.*observer.service: //; s/ [^ ]*$//')
  must "systemd-analyze security: $score" sh -c "echo '$score' | grep -E '^[0-3]\.[0-9] OK'"
  log >/tmp/log
  must "the log has neither warning nor error" no_trouble /tmp/log
  echo "note $(grep -o 'armed .*' /tmp/log | head -n 1)"
}

# Services come and go, with namespaces of their own: none is a container that does what it should not.
services() {
  quiet=$(alerts)
  cat >/run/systemd/system/ordinary.service <<'UNIT'
[Service]
ExecStart=/bin/sleep 600
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectSystem=strict
ProtectHome=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectHostname=yes
UNIT
  systemctl daemon-reload
  must "a service starts" systemctl start ordinary
  must "a service starts again" systemctl restart ordinary
  must "a service stops" systemctl stop ordinary
  must "a unit for one command" systemd-run --quiet --wait --property=DynamicUser=yes --property=PrivateTmp=yes true
  must "one in a user namespace" systemd-run --quiet --wait --property=PrivateUsers=yes --property=ProtectSystem=full true
  must "a scope" systemd-run --quiet --scope true
  # A sweep is every five seconds.
  sleep 12
  must "no alert of any of them" is "$(alerts)" "$quiet"
}

containers() {
  quiet=$(alerts)
  for name in web shop mail; do bundle $name; done
  must "runc starts a container" detached web
  must "runc has systemd start one" detached shop --systemd-cgroup
  must "a service starts one" systemd-run --quiet --unit=mail --property=Delegate=yes runc run --bundle /run/mail mail
  must "they are seen" soon listed web shop mail
  sleep 12
  must "no alert of what they were started by" is "$(alerts)" "$quiet"
  for name in web shop mail; do
    must "$name escapes" escape $name
    must "the journal has the alert about $name" soon told_more $name 0
  done
  must "the metrics count them" sh -c '[ "$0" -ge "$1" ]' "$(alerts)" $((quiet + 3))
  must "observer tail shows them" sh -c 'timeout 10 observer tail --recent --json | grep -q namespace.escape'
  log >/tmp/log
  must "still neither warning nor error" no_trouble /tmp/log
}

# The agent's end by a signal that nobody handles.
killed() {
  pid=$(agent)
  before=$(told web)
  kill -KILL "$pid"
  must "killed, it is started again" soon is_new_agent "$pid"
  must "once" is "$(property NRestarts)" 1
  must "it knows the containers of before" soon settled web shop mail
  must "web escapes from the new one" escape web
  must "and is told of" soon told_more web "$before"
}

reloaded() {
  pid=$(agent)
  cat >$config <<'YAML'
# The administrator's.
node: package-test
sinks:
  - {type: file, name: archive, path: /var/log/observer/alerts.json}
  # Nobody is there yet.
  - {type: syslog, name: siem, address: "tcp://siem.test:6514", facility: local0}
YAML
  sha256sum $config >$kept/config
  must "systemctl reload" systemctl reload observer
  must "what the configuration has is used" soon sh -c "curl -fsS http://$address/metrics | grep 'observer_sink_up{sink=\"archive\"}'"
  must "by the same process" is "$(agent)" "$pid"
  must "the log says so" sh -c 'journalctl --unit=observer --output=cat --no-pager | grep "the configuration was read again"'
  must "shop escapes" escape shop
  must "the file has it" soon archived shop

  cp $config $kept/good.yaml
  echo 'sinks: [{type: pigeon, name: p}]' >$config
  must "systemctl reload refuses a mistake" not systemctl reload observer
  must "and says what it is" sh -c 'journalctl --unit=observer --output=cat --no-pager | grep "observer: .*pigeon"'
  must "the agent says that it keeps the old one" soon sh -c 'journalctl --unit=observer --output=cat --no-pager | grep "the old one stays in use"'
  must "it goes on" is "$(systemctl is-active observer) $(agent)" "active $pid"
  must "mail escapes" escape mail
  must "with the old configuration" soon archived mail
  cp $kept/good.yaml $config
  must "the mistake is mended" systemctl reload observer
  must "names are looked up without libraries of the host" not grep -F .so "/proc/$pid/maps"
  must "alerts wait for who is away" sh -c '[ "$0" -ge 2 ]' "$(backlog)"
  sed -n 's/.*"id":"\([^"]*\)","incident".*/\1/p' $archive | sort >$kept/ids
  must "they have ids" grep -q . $kept/ids
}

# after_upgrade PID OF_BEFORE VERSION
after_upgrade() {
  must "it is $2" is "$(version)" "$2 ii "
  must "another process runs" soon is_new_agent "$1"
  must "of the new file" not sh -c "readlink /proc/$(agent)/exe | grep deleted"
  must "the unit is the new one" is "$(property NeedDaemonReload)" no
  must "the administrator's configuration is there" same_config
  must "and is used" soon sh -c "curl -fsS http://$address/metrics | grep 'observer_sink_up{sink=\"archive\"}'"
  must "alerts still wait" sh -c '[ "$0" -ge "$1" ]' "$(backlog)" "$3"
  must "the archive is as it was" sh -c "while read -r id; do grep -q \"\$id\" $archive || exit; done <$kept/ids"
}

upgraded() {
  waiting=$(backlog)
  pid=$(agent)
  must "apt upgrades it" apt-get install --yes ./second.deb
  after_upgrade "$pid" "$(dpkg-deb --field second.deb Version)" "$waiting"
  must "it knows the containers of before" soon settled web shop mail

  pid=$(agent)
  must "a release with another default, and whoever changed it keeps what is there" dpkg --install --force-confold third.deb
  after_upgrade "$pid" "$(dpkg-deb --field third.deb Version)" "$waiting"
  must "the new default lies beside it" grep -q 'Of a later release' $config.dpkg-dist

  must "the administrator turns it off" systemctl disable --quiet --now observer
  must "apt installs it again" apt-get install --yes --reinstall ./third.deb
  must "it stays off" is "$(systemctl is-enabled observer) $(systemctl is-active observer)" "disabled inactive"
  must "and on" systemctl enable --quiet --now observer
  must "it is armed again" soon ready
  must "alerts still wait after all that" sh -c '[ "$0" -ge "$1" ]' "$(backlog)" "$waiting"
}

# The machine was started again.
after_start() {
  must "it is armed after a start of the machine" soon ready
  must "all is well with the system" soon is_running
  must "the configuration is still the administrator's" same_config
  must "alerts have waited" sh -c '[ "$0" -ge 2 ]' "$(backlog)"
  sleep 900 | busybox nc -l -p 6514 >$kept/siem &
  must "whoever they wait for comes, and gets all" soon delivered
  must "nobody waits any more" soon nothing_waits
}
is_running() { is "$(systemctl is-system-running)" running; }
delivered() { while read -r id; do grep -q "$id" $kept/siem || return; done <$kept/ids; }
nothing_waits() { is "$(backlog)" 0; }

removed() {
  pid=$(agent)
  dpkg --listfiles observer >/tmp/files
  must "apt removes it" apt-get remove --yes observer
  must "it has ended" not test -e "/proc/$pid"
  must "in order" sh -c 'journalctl --unit=observer --output=cat --no-pager | grep " info ended"'
  must "nobody listens" not get metrics
  must "its socket is gone" not test -e /run/observer
  must "its files are gone" sh -c 'while read -r file; do [ ! -f "$file" ] || [ "$file" = '$config' ] || { echo "$file"; exit 1; }; done </tmp/files'
  must "its configuration is there" same_config
  must "and what it has kept" test -s $archive -a -e /var/lib/observer
  must "apt installs it once more" apt-get install --yes ./third.deb
  must "it is armed once more" soon ready
  must "with the administrator's configuration" same_config
}

purged() {
  pid=$(agent)
  must "apt purges it" apt-get purge --yes observer
  must "it has ended for good" not test -e "/proc/$pid"
  must "dpkg does not know it" not dpkg-query --status observer
  must "systemd neither" is "$(property LoadState)" not-found
  additions >/tmp/left
  must "nothing is left" sh -c 'cat /tmp/left; [ ! -s /tmp/left ]'
  must "no user was made or forgotten" sha256sum --check --quiet $kept/users
  must "no unit failed" is "$(systemctl --failed --no-legend --plain)" ""
  # What systemd's filter or the agent's own has refused, over all of this start.
  must "nothing was refused by a filter of system calls" not sh -c 'journalctl --boot --no-pager | grep "type=1326"'
}

if [ ! -e $kept/started ]; then
  # A module that comes with each release's C library and knows no hosts: to load it would bring down a static agent that was built
  # with another one.
  sed -i 's/^hosts:.*/hosts: hesiod files dns/' /etc/nsswitch.conf
  echo '127.0.0.1 siem.test' >>/etc/hosts
  must "all is well with the system before" soon is_running
  installation
  services
  containers
  killed
  reloaded
  upgraded
  must "nothing was refused by a filter of system calls so far" not sh -c 'journalctl --boot --no-pager | grep "type=1326"'
  touch $kept/started
  journalctl --no-pager --output=short-monotonic >/dev/ttyS3
  echo again
  systemctl reboot
  sleep 600
else
  after_start
  removed
  purged
  journalctl --boot --no-pager --output=short-monotonic >/dev/ttyS3
  [ ! -s $kept/failed ]
  echo "exit $?"
fi
