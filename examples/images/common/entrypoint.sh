#!/bin/sh
# entrypoint.sh recorder|transcriber [resend]
# Prepares the container as root, then runs the program as user calls.
set -u

program=$1
action=${2:-}
child=
stopping=

# Before anything that waits: a SIGTERM must never find the default action.
# It goes to the program itself, for no helper in between would let it finish.
trap 'stopping=yes; [ -z "$child" ] || kill -TERM "$child"' TERM INT

fail() {
    echo "entrypoint: $*" >&2
    exit 1
}

# Words of ours, to be split. No function: in the background it would be a shell
# of its own between this one and the program.
as_calls="setpriv --reuid calls --regid calls --init-groups"

case $program in
recorder) id=${RECORDING_ID:-} name=RECORDING_ID ;;
transcriber) id=${TRANSCRIPTION_ID:-} name=TRANSCRIPTION_ID ;;
*) fail "unknown program $program" ;;
esac
case $action in '' | resend) ;; *) fail "unknown action $action" ;; esac
# The id becomes a path that root works on.
case $id in *[!a-z0-9]* | '') fail "$name is not an id" ;; esac
[ ${#id} -eq 26 ] || fail "$name is not an id"

mkdir -p "/data/$id" || fail "cannot make /data/$id"
chown -hR calls:calls "/data/$id" /home/calls || fail "cannot hand over /data/$id"

if [ -n "${TLS_CA_CERT_FILE:-}" ]; then
    cp -- "$TLS_CA_CERT_FILE" /usr/local/share/ca-certificates/site.crt &&
        update-ca-certificates >/dev/null 2>&1 || fail "cannot install TLS_CA_CERT_FILE"
    # Chromium trusts what its user's own database holds.
    if [ "$program" = recorder ]; then
        database=/home/calls/.pki/nssdb
        $as_calls mkdir -p "$database" &&
            $as_calls certutil -N --empty-password -d "sql:$database" &&
            $as_calls certutil -A -n site -t C,, -d "sql:$database" \
                -i /usr/local/share/ca-certificates/site.crt ||
            fail "cannot install TLS_CA_CERT_FILE for the browser"
    fi
fi

if [ "$program$action" = recorder ]; then
    pulseaudio --system --daemonize --disallow-exit --exit-idle-time=-1 --log-level=error ||
        fail "PulseAudio does not start"
fi

export HOME=/home/calls USER=calls LOGNAME=calls
$as_calls python3 -B "/opt/job/$program.py" ${action:+"$action"} &
child=$!
[ -z "$stopping" ] || kill -TERM "$child"

# A signal ends the wait, not the program.
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done

# The recorder in use answers a SIGTERM with code 1 even when it has delivered
# everything. Who starts these containers has to cope with that, so it is kept.
if [ "$program$action" = recorder ] && [ -n "$stopping" ]; then
    code=1
fi
exit "$code"
