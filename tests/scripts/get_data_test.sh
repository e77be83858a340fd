#!/usr/bin/env bash
# scripts/get_data.sh against a loopback server with a small stand-in archive. Nothing here
# goes beyond 127.0.0.1: the built-in mirrors are off, and so are proxies and ~/.curlrc.
set -euo pipefail

get_data=$(realpath -m "${BASH_SOURCE[0]}/../../../scripts/get_data.sh")
# shellcheck source=tests/checks.sh
source "$(dirname "${BASH_SOURCE[0]}")/../checks.sh"
server_pid=
trap '[[ -z $server_pid ]] || kill "$server_pid" 2>/dev/null || true; rm -rf "$work"' EXIT

unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
export no_proxy='*' CIFAR_MIRRORS='' CURL_HOME=$work
touch .curlrc

# --- The stand-in: as the true archive, but of two records a batch.

folder=cifar-10-batches-bin
archive=cifar-10-binary.tar.gz
batches=(data_batch_{1..5}.bin test_batch.bin)
export CIFAR_BATCH_SIZE=$((2 * 3073))

mkdir served "$folder"
for batch in "${batches[@]}"; do head -c "$CIFAR_BATCH_SIZE" /dev/urandom >"$folder/$batch"; done
printf '%s\n' airplane automobile bird cat deer dog frog horse ship truck >"$folder/batches.meta.txt"
echo '<html>about the data</html>' >"$folder/readme.html"
tar -czf "served/$archive" "$folder"
cp -r "$folder" expected

sum_of() { "$2sum" <"$1" | cut -d ' ' -f 1; } # FILE md5|sha256
size_of() { stat -c %s "$1"; }
CIFAR_ARCHIVE_SIZE=$(size_of "served/$archive")
CIFAR_ARCHIVE_MD5=$(sum_of "served/$archive" md5)
CIFAR_ARCHIVE_SHA256=$(sum_of "served/$archive" sha256)
export CIFAR_ARCHIVE_SIZE CIFAR_ARCHIVE_MD5 CIFAR_ARCHIVE_SHA256
half=$((CIFAR_ARCHIVE_SIZE / 2))

head -c "$half" "served/$archive" >first_half
cp first_half served/short
head -c "$CIFAR_ARCHIVE_SIZE" /dev/urandom >served/wrong
{ cat "served/$archive"; echo more; } >served/long
echo '<!DOCTYPE html><title>Please log in</title>' >served/page

# --- The server. /HOW/FILE sends served/FILE: whole "plain"ly or by Range, "norange" without
# heed to Range, "no416" with 416 for any Range, "broken" off in the middle unless by Range, "held" until there is a file
# "go", or "endless"ly: 64 MB of it, without a length.

cat >server.py <<'END'
import contextlib, http.server, os, re, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        with open("requests", "a") as log:
            print(self.path, wanted, file=log)
        how, name = self.path.split("/")[1:]
        if how == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked goes away
                for _ in range(1024):
                    self.wfile.write(bytes(65536))
            return
        try:
            with open("served/" + name, "rb") as file:
                body = file.read()
        except OSError:
            return self.send_error(404)
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and how != "norange" else 0
        if start >= len(body) or (start and how == "no416"):
            return self.send_error(416)
        for _ in range(200 if how == "held" else 0):
            os.path.exists("go") or time.sleep(0.1)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:] if start or how != "broken" else body[:len(body) // 2])

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open("port.new", "w") as file:
    file.write(str(server.server_port))
os.rename("port.new", "port")
server.serve_forever()
END
timeout 300 python3 server.py &
server_pid=$!
for _ in {1..100}; do [[ -s port ]] && break; sleep 0.1; done
[[ -s port ]] || { echo "FAILED: the loopback server did not start within 10 s"; exit 1; }
site=http://127.0.0.1:$(<port)

# --- The checks. Each case runs in a new destination, $dest, and is judged by what is left there.

cases=0
begin() { # NAME
    case=$1 cases=$((cases + 1))
    dest=$work/dest-$cases
    part=$dest/$archive.part
    mkdir "$dest"
    : >requests
}

run() { # STATUS WORDS ARGUMENT...: it must end with STATUS, say WORDS and leave no half-made folder
    status=0
    "$get_data" --dest "$dest" "${@:3}" >output 2>&1 </dev/null || status=$?
    ((status == $1)) || failed "$case: status $status instead of $1" output
    grep -qF -- "$2" output || failed "$case: it did not say '$2'" output
    if ((status == 0)); then
        check "$case: the data is the archive's" diff -r expected "$dest/$folder"
    else
        check "$case: no folder is left behind" test -z "$(find "$dest" -mindepth 1 -type d)"
    fi
}

gone() { [[ ! -e $1 ]]; }
asked() { grep -qxF "$1" requests; }
only_data() { [[ $(ls -A "$dest") == "$folder" ]]; }

begin 'good download, then there already'
run 0 "CIFAR-10 is in $dest/$folder" --mirror "$site/plain/$archive"
check "$case: nothing is left beside the data" only_data
: >requests
run 0 'already in' --mirror "$site/plain/$archive"
check "$case: it does not ask the server again" test ! -s requests

begin 'a mirror that is a folder; a mirror that is down before it; --mirror=URL'
run 0 'CIFAR-10 is in' --mirror=http://127.0.0.1:1/ "--mirror=$site/plain/"

begin 'mirrors by CIFAR_MIRRORS'
CIFAR_MIRRORS="$site/plain/missing $site/plain/" run 0 'CIFAR-10 is in'

begin 'file:// mirror'
run 0 'CIFAR-10 is in' --mirror "file://$work/served/"

begin 'relative --dest from elsewhere'
mkdir "$dest/elsewhere"
(cd "$dest/elsewhere" && "$get_data" --dest ../data --mirror "$site/plain/") >output 2>&1 || true
check "$case: the data is there" diff -r expected "$dest/data/$folder"

begin 'resume from a .part'
cp first_half "$part"
run 0 'CIFAR-10 is in' --mirror "$site/plain/$archive"
check "$case: it goes on from the half" asked "/plain/$archive bytes=$half-"

begin 'the line breaks in the middle'
run 0 'CIFAR-10 is in' --mirror "$site/broken/$archive"
check "$case: it goes on from the half" asked "/broken/$archive bytes=$half-"

begin 'a server that ignores Range'
cp first_half "$part"
run 0 'beginning anew' --mirror "$site/norange/$archive"

begin 'a server that answers Range with 416'
cp first_half "$part"
run 0 'beginning anew' --mirror "$site/no416/$archive"

begin 'a whole .part'
cp "served/$archive" "$part"
run 0 'CIFAR-10 is in' --mirror http://127.0.0.1:1/
check "$case: nothing is left beside the data" only_data

begin 'a whole .part that is wrong'
cp served/wrong "$part"
run 0 'the md5 check failed' --mirror "$site/plain/"

begin 'a web page instead of the archive'
run 3 'it is a web page' --mirror "$site/plain/page"
check "$case: the page is not kept" gone "$part"

begin 'a web page, then a mirror that has the archive'
run 0 'it is a web page' --mirror "$site/plain/page" --mirror "$site/plain/"

begin 'right size, wrong md5'
run 3 'the md5 check failed' --mirror "$site/plain/wrong"
check "$case: the wrong file is not kept" gone "$part"

begin 'right md5, wrong sha256'
CIFAR_ARCHIVE_SHA256=0 run 3 'the sha256 check failed' --mirror "$site/plain/"
check "$case: the wrong file is not kept" gone "$part"
CIFAR_ARCHIVE_SHA256=0 run 3 'the sha256 check failed' --archive "served/$archive"

begin 'too long'
run 3 'the size check failed' --mirror "$site/plain/long"
check "$case: the wrong file is not kept" gone "$part"

begin 'a server that sends for ever, then a mirror that has the archive'
run 0 "the size check failed: $((CIFAR_ARCHIVE_SIZE + 1)) bytes instead of $CIFAR_ARCHIVE_SIZE" \
    --mirror "$site/endless/$archive" --mirror "$site/plain/"
check "$case: it does not ask the endless one again" test "$(grep -c endless requests)" = 1

begin 'too short, then the rest'
run 3 "the size check failed: $half bytes instead of $CIFAR_ARCHIVE_SIZE" --mirror "$site/plain/short"
check "$case: the part is kept" cmp -s first_half "$part"
run 0 'CIFAR-10 is in' --mirror "$site/plain/"
check "$case: it goes on from the half" asked "/plain/$archive bytes=$half-"

begin 'a mirror without the archive'
run 1 'none has the archive' --mirror "$site/plain/missing"

begin 'no network'
run 1 'no mirror could be reached; is there a network?' --mirror http://127.0.0.1:1/

begin 'no network, and a .part'
cp first_half "$part"
run 1 'no mirror could be reached; is there a network?' --mirror http://127.0.0.1:1/
check "$case: the part is kept" cmp -s first_half "$part"

begin 'no mirror at all'
run 1 'no mirror to try'

begin '--archive'
run 0 'CIFAR-10 is in' --archive "served/$archive"
check "$case: the archive stays" test -s "served/$archive"

begin '--archive that is wrong, short, a web page, missing'
run 3 'the md5 check failed' --archive served/wrong
run 3 'the size check failed' --archive served/short
run 3 'it is a web page' --archive served/page
run 3 'no such file' --archive served/missing
check "$case: the file stays" test -s served/wrong

begin 'a folder with a fault is replaced, and kept under another name'
mkdir "$dest/$folder"
echo mine >"$dest/$folder/notes"
run 0 'data_batch_1.bin has 0 bytes' --archive "served/$archive"
check "$case: the old folder is kept" test -s "$dest/$folder.~1~/notes"

# The checks of size and sums pass in these, so that what comes after them is seen.
run_unchecked() { # STATUS WORDS FILE
    CIFAR_ARCHIVE_SIZE=$(size_of "served/$3") CIFAR_ARCHIVE_MD5=$(sum_of "served/$3" md5) \
        CIFAR_ARCHIVE_SHA256=$(sum_of "served/$3" sha256) run "$1" "$2" --mirror "$site/plain/$3"
}

begin 'not an archive'
run_unchecked 3 'cannot be unpacked' wrong

begin 'an archive that ends in the middle'
run_unchecked 3 'cannot be unpacked' short

cat >strange.py <<'END'
import sys, tarfile

with tarfile.open("served/strange", "w:gz") as tar:
    tar.add("cifar-10-batches-bin")
    member = tarfile.TarInfo(sys.argv[2])
    member.type = getattr(tarfile, sys.argv[1])
    member.linkname = "cifar-10-batches-bin/readme.html"
    tar.addfile(member)
END
for member in {SYM,LNK,CHR,BLK,FIFO}"TYPE $folder/strange" \
    "REGTYPE $work/absolute" "REGTYPE $folder/../../up" 'REGTYPE ..' 'DIRTYPE ../up'; do
    begin "an archive with a $member"
    read -ra words <<<"$member"
    python3 strange.py "${words[@]}"
    run_unchecked 3 'holds what CIFAR-10 does not' strange
    check "$case: nothing is left" test "$(ls -A "$dest")" = .get_data.lock
done

begin 'an archive with setuid, setgid and sticky bits'
tar -czf served/bits --mode=7777 "$folder"
run_unchecked 0 'CIFAR-10 is in' bits
check "$case: they are not set" test -z "$(find "$dest/$folder" -perm /7000)"

begin 'an archive with a batch that is too short'
echo short >"$folder/test_batch.bin"
tar -czf served/short_batch "$folder"
run_unchecked 3 'test_batch.bin has 6 bytes' short_batch

begin 'an archive without a batch'
rm "$folder/test_batch.bin"
tar -czf served/no_batch "$folder"
run_unchecked 3 'test_batch.bin has 0 bytes' no_batch

begin 'several at once, and what one that was killed has left'
mkdir "$dest/.unpacking"
pids=()
for i in 1 2 3; do
    "$get_data" --dest "$dest" --mirror "$site/held/" >"output.$i" 2>&1 </dev/null &
    pids+=($!)
done
two_wait() { (($(cat output.? | grep -c 'waiting for another') == 2)); }
for _ in {1..100}; do two_wait && break; sleep 0.1; done
check "$case: two wait" two_wait
touch go
for pid in "${pids[@]}"; do check "$case: all end well" wait "$pid"; done
cat output.? >output
check "$case: the data is the archive's" diff -r expected "$dest/$folder"
check "$case: nothing is left beside the data" only_data
check "$case: the archive is got once" test "$(wc -l <requests)" = 1

begin 'usage'
run 2 "unknown argument '--frobnicate'" --frobnicate
run 2 '--mirror: a value is missing' --mirror
run 2 "mirror 'ftp://127.0.0.1/'" --mirror ftp://127.0.0.1/
check "$case: --help names CIFAR_MIRRORS" grep -q CIFAR_MIRRORS <("$get_data" --help)

end_checks
