package why

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

// A connection of bytes answers nothing, and that it was made says nothing where ztunnel takes it: what counts is what becomes of it. Who
// refuses it closes it at once. Whether it has arrived is what the ztunnel of the destination says, which is asked meanwhile.

const (
	// patience is how long a connection is waited for that is neither closed nor seen at its destination.
	patience = 5 * time.Second
	// askEvery is the time between two looks at the destination.
	askEvery = 300 * time.Millisecond
	// answered is the exit code of a client to which something came.
	answered = 29
	// mostNodes bounds of how many nodes the ztunnels are asked.
	mostNodes = 8
)

// connector opens a connection with whatever the container has, and exits with 28 when it is open after the time ($3), with 29 when
// something came, with 0 when it was closed, with another code when it was refused. A terminal that nobody writes to is an input that never ends.
const connector = `h=$1 p=$2 t=$3
if command -v bash >/dev/null 2>&1; then exec bash -c 'exec 3<>"/dev/tcp/$0/$1" || exit 7; IFS= read -r -t "$2" -n 1 <&3; c=$?; [ $c -eq 0 ] && exit 29; [ $c -gt 128 ] && exit 28; exit 0' "$h" "$p" "$t"; fi
case "$h" in *:*) u="[$h]";; *) u=$h;; esac
if command -v curl >/dev/null 2>&1; then exec curl -sS --max-time "$t" "telnet://$u:$p" </dev/ptmx; fi
if command -v nc >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then timeout "$t" nc "$h" "$p" </dev/ptmx; c=$?; case $c in 124|143) exit 28;; 0) exit 0;; esac; exit 7; fi
if command -v python3 >/dev/null 2>&1; then exec python3 -c 'import socket,sys
try: s=socket.create_connection((sys.argv[1],int(sys.argv[2])),float(sys.argv[3]))
except OSError as e: print(e,file=sys.stderr); sys.exit(7)
s.settimeout(float(sys.argv[3]))
try: d=s.recv(1)
except socket.timeout: sys.exit(28)
except OSError: sys.exit(0)
sys.exit(29 if d else 0)' "$h" "$p" "$t"; fi
echo "none of bash, curl, nc with timeout, python3 is there" >&2; exit 127`

// connect opens a connection from the source's pod, and ends as soon as it is known what becomes of it.
func (m *Model) connect(ctx context.Context, mesh *reach.Mesh, r *Report, pod reach.Pod) {
	host, port, err := net.SplitHostPort(r.target())
	if err != nil {
		r.Probe.Error = fmt.Sprintf("%s is no host and port: %v", r.target(), err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience+10*time.Second)
	defer cancel()
	// First the look at what is open already: a client that was faster would be taken for a connection of before.
	watch := m.destinations(ctx, mesh, r)
	type end struct {
		code           int
		err            error
		stdout, stderr string
	}
	ended := make(chan end, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		var stdout, stderr bytes.Buffer
		argv := []string{"sh", "-c", connector, "probe", host, port, fmt.Sprint(int(patience.Seconds()))}
		code, err := mesh.Exec(running, pod, containerOf(r.source), argv, &stdout, &stderr)
		ended <- end{code, err, stdout.String(), stderr.String()}
	}()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-ended:
			if missing(e.code, e.err, e.stderr) {
				r.Probe.Error = fmt.Sprintf("pod %s has no client to connect with (sh, and bash, curl, nc with timeout, or python3): probe from one that has; %s", pod, beside(pod))
				return
			}
			if e.err != nil {
				r.Probe.Error = e.err.Error()
				return
			}
			if e.stdout != "" {
				e.code = answered
			}
			r.becameOf(e.code, lastLine(e.stderr), watched(watch))
			return
		case <-tick.C:
			if at := arrived(ctx, mesh, watch); at != "" {
				stop()
				<-ended
				r.settle("the connection has arrived at "+at, true)
				return
			}
		}
	}
}

// becameOf is what the end of the client says. asked is whether somebody could have said that the connection has arrived.
func (r *Report) becameOf(code int, stderr string, asked bool) {
	switch {
	case code == answered:
		r.settle("the destination has sent something", true)
	case code == 28 && asked:
		r.settle(fmt.Sprintf("the connection has not arrived at the destination within %s", patience), false)
	case code == 28:
		r.settle(fmt.Sprintf("the connection is still open after %s", patience), true)
	case code == 0:
		r.settle("the connection was closed at once", false)
	default:
		r.settle("failed: "+orNone(stderr, stderr == ""), false)
	}
}

func (r *Report) settle(answer string, reached bool) {
	p := r.Probe
	p.Command, p.Answer, p.Reached = "a TCP connection to "+r.target(), answer, reached
	p.Agrees = reached == (r.Verdict.Outcome == Allowed) || r.Verdict.Share != 0 || r.Verdict.Outcome == Unknown
}
