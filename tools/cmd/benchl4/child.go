package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/hbone"
	"github.com/isthmus-mesh/isthmus/pkg/netx"
	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// childArg as the first argument makes this program one of the processes of the test bed.
const childArg = "child"

// The processes of the test bed.
const (
	roleApp    = "app"
	roleClient = "client" // the proxy next to the load
	roleServer = "server" // the proxy next to the app
)

// setup is what a child is told first, in one line on its standard input.
type setup struct {
	Identity identity
	Expect   string // client: the server's SPIFFE ID
	Next     string // client: the server proxy; server: the app
	Profile  string // where to write a CPU profile; "" is nowhere
}

// runChild serves until its standard input ends: it prints its address, then answers a line for each line.
func runChild(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("want a role and a tunnel")
	}
	var s setup
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return errors.New("no setup on standard input")
	}
	if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if s.Profile != "" {
		f, err := os.Create(s.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if args[0] == roleClient && args[1] == direct {
		return answerDirect(s, lines, out)
	}
	ended := make(chan error, 2)
	after := netx.SleepAfter
	if args[1] == awake {
		after = 24 * time.Hour
	}
	sleepers, err := netx.NewSleepers(after)
	if err != nil {
		return err
	}
	var turns *netx.Turns
	if args[1] == isthmus || args[1] == awake { // as the node proxy
		turns = netx.NewTurns(runtime.GOMAXPROCS(0))
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
	serve, err := server(args[0], args[1], s, sleepers, taker(turns))
	if err != nil {
		return err
	}
	go func() { ended <- serve(l) }()
	second, err := neighbour(args[0], args[1], s, sleepers, taker(turns), ended)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr(), second)
	for lines.Scan() {
		select {
		case err := <-ended:
			return err
		default:
		}
		if lines.Text() == "asleep" {
			fmt.Fprintln(out, sleepers.Asleep())
		} else {
			measured(lines.Text(), out)
		}
	}
	return lines.Err()
}

// neighbour serves a second workload of the same process, with tunnel connections of its own, and returns its address.
func neighbour(role, tunnel string, s setup, sleepers *netx.Sleepers, turns *netx.Taker, ended chan<- error) (net.Addr, error) {
	if role != roleClient {
		return &net.TCPAddr{}, nil
	}
	serve, err := server(role, tunnel, s, sleepers, turns)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { ended <- serve(l) }()
	return l.Addr(), nil
}

// taker is that of another workload; nil without turns.
func taker(turns *netx.Turns) *netx.Taker {
	if turns == nil {
		return nil
	}
	return turns.Taker()
}

// measured answers the questions that every process answers.
func measured(what string, out io.Writer) {
	switch what {
	case "cpu":
		fmt.Fprintln(out, bench.CPUTime().Nanoseconds())
	case "memory":
		fmt.Fprintln(out, resident())
	}
}

// server is what a role does with its listener.
func server(role, tunnel string, s setup, sleepers *netx.Sleepers, turns *netx.Taker) (func(net.Listener) error, error) {
	if role == roleApp {
		return serveApp, nil
	}
	own, err := s.Identity.workload()
	if err != nil {
		return nil, err
	}
	switch tunnel + " " + role {
	case isthmus + " " + roleClient, awake + " " + roleClient:
		return isthmusClient(own, s, hbone.Records, sleepers, turns), nil
	case isthmus + " " + roleServer, awake + " " + roleServer:
		return isthmusServer(own, s, hbone.Records, sleepers, turns), nil
	case standard + " " + roleClient:
		return isthmusClient(own, s, hbone.Standard, sleepers, turns), nil
	case standard + " " + roleServer:
		return isthmusServer(own, s, hbone.Standard, sleepers, turns), nil
	case splice + " " + roleClient, splice + " " + roleServer:
		return splicing(s), nil
	case direct + " " + roleServer:
		return directServer(own), nil
	case xnet + " " + roleClient:
		return xnetClient(own, s)
	case xnet + " " + roleServer:
		return xnetServer(own, s), nil
	}
	return nil, fmt.Errorf("no such role: %s %s", tunnel, role)
}

// accept hands each connection to serve, which run starts on a goroutine.
func accept(l net.Listener, run func(func()), serve func(*net.TCPConn)) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		run(func() { serve(conn.(*net.TCPConn)) })
	}
}

func spawn(fn func()) { go fn() }

// resident is the memory that this process has from the kernel when nothing is left to collect.
func resident() int64 {
	for range 3 { // pools are emptied in the second round, what they held goes in the third
		debug.FreeOSMemory()
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	line, _, _ := strings.Cut(rest, "\n")
	kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
