package upgradebed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// The pods' addresses, in networks of their own.
const (
	clientIP = "10.79.0.1"
	serverIP = "10.79.0.2"
)

// proxyMark is on packets of the node proxy.
const proxyMark = 0x539

// redirection is what the CNI agent puts into a pod.
const redirection = `table inet mesh {
 chain out { type nat hook output priority -100; meta mark and 0xfff == 0x539 return; ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15001; }
 chain in { type nat hook prerouting priority -100; tcp dport != 15008 meta l4proto tcp redirect to :15006; }
 chain mark_in { type filter hook prerouting priority -150; meta mark and 0xfff == 0x539 ct mark set 0x111; }
 chain mark_out { type route hook output priority -150; ct mark and 0xfff == 0x111 meta mark set 0x111; }
}`

// pods are two network namespaces on one wire.
type pods struct {
	names          [2]string
	client, server *netx.NS
}

func newPods(ctx context.Context) (p *pods, err error) {
	p = &pods{names: [2]string{fmt.Sprintf("isthup-a%d", os.Getpid()), fmt.Sprintf("isthup-b%d", os.Getpid())}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for _, name := range p.names {
		if err := run(ctx, "", "ip", "netns", "add", name); err != nil {
			return p, err
		}
	}
	if err := run(ctx, "", "ip", "link", "add", "eth0", "netns", p.names[0], "type", "veth", "peer", "name", "eth0", "netns", p.names[1]); err != nil {
		return p, err
	}
	for i, ip := range []string{clientIP, serverIP} {
		for _, line := range []string{
			"link set lo up", "link set eth0 up", "addr add " + ip + "/24 dev eth0",
			"rule add fwmark 0x111/0xfff pref 32764 lookup 100", "route add local default dev lo table 100",
		} {
			if err := run(ctx, "", append([]string{"ip", "-n", p.names[i]}, strings.Fields(line)...)...); err != nil {
				return p, err
			}
		}
		if err := run(ctx, redirection, "ip", "netns", "exec", p.names[i], "nft", "-f", "-"); err != nil {
			return p, err
		}
	}
	if p.client, err = open(p.path(0)); err != nil {
		return p, err
	}
	p.server, err = open(p.path(1))
	return p, err
}

func (p *pods) path(i int) string { return "/run/netns/" + p.names[i] }

func (p *pods) close() {
	for _, ns := range []*netx.NS{p.client, p.server} {
		if ns != nil {
			ns.Close()
		}
	}
	for _, name := range p.names {
		_ = exec.Command("ip", "netns", "del", name).Run() // it may not be there
	}
}

// open returns the Network of the applications in a pod.
func open(path string) (*netx.NS, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return netx.NewNS(file, netx.Options{})
}

func run(ctx context.Context, stdin string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), errors.Join(err, errors.New(string(out))))
	}
	return nil
}
