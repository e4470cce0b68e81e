# Runs one Postgres server for a test process and outlives that process by as much as it takes to clean
# up. Orders come in on stdin, one a line; each is answered by a line "done", or "gone". When stdin closes, which it
# does however the test process ends, the server is stopped and the directory removed.
#
# Arguments: the server's binary, the directory (data in DIR/data, log in DIR/log), then the server's own
# arguments.
binary=$1
directory=$2
shift 2
server=

children() {
    cat "/proc/$server/task/$server/children" 2>/dev/null
}

stop() {
    [ -n "$server" ] || return 0
    kill -s "$1" "$server" 2>/dev/null
    # A frozen server sees the signal once it runs again.
    kill -s CONT "$server" $(children) 2>/dev/null
    wait "$server" 2>/dev/null
    server=
}

while read -r order; do
    case $order in
    start)
        "$binary" -D "$directory/data" "$@" >>"$directory/log" 2>&1 </dev/null &
        server=$!
        ;;
    stop) stop INT ;;
    kill) stop QUIT ;;
    pause)
        # The server first, so that it makes no new children behind our back.
        kill -s STOP "$server"
        kill -s STOP $(children) 2>/dev/null
        ;;
    check)
        # Ended but not waited for is ended.
        case $(cut -d ' ' -f 3 "/proc/$server/stat" 2>/dev/null) in
        '' | Z)
            echo gone
            continue
            ;;
        esac
        ;;
    resume) kill -s CONT "$server" $(children) 2>/dev/null ;;
    esac
    echo done
done
stop QUIT
rm -rf "$directory"
