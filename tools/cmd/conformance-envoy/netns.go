package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/isthmus-mesh/isthmus/pkg/netx"
)

// hub is the address of this process, which plays control plane, clients and backends.
func hub() netip.Addr { return netip.MustParseAddr("10.77.0.1") }

// netns is a network namespace that is connected with the one of this process.
type netns struct {
	ip      netip.Addr
	holder  *exec.Cmd // keeps the namespace
	sockets *netx.NS
}

// ipCmd runs ip(8) commands.
func ipCmd(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// setUpHub gives the own namespace its addresses.
func setUpHub(ctx context.Context, addresses []netip.Addr) error {
	commands := []string{"link set lo up", "addr add " + hub().String() + "/32 dev lo"}
	for _, a := range addresses {
		commands = append(commands, "addr add "+a.String()+"/32 dev lo")
	}
	return ipCmd(ctx, commands...)
}

// newNetns makes the namespace of a pod. number makes the names of devices unique.
func newNetns(ctx context.Context, number int, ip netip.Addr) (*netns, error) {
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	n := &netns{ip: ip, holder: holder}
	near, pid := "wp"+strconv.Itoa(number), strconv.Itoa(holder.Process.Pid)
	err := ipCmd(ctx,
		"link add "+near+" type veth peer name eth0 netns "+pid,
		"link set "+near+" up",
		"route add "+ip.String()+"/32 dev "+near+" src "+hub().String(),
	)
	if err == nil {
		err = n.inside(ctx, "ip link set lo up", "ip addr add "+ip.String()+"/32 dev eth0", "ip link set eth0 up", "ip route add default dev eth0")
	}
	if err == nil {
		var file *os.File
		if file, err = os.Open("/proc/" + pid + "/ns/net"); err == nil {
			n.sockets, err = netx.NewNS(file, netx.Options{})
		}
	}
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// enter is the command that runs another one in the namespace.
func (n *netns) enter() []string {
	return []string{"nsenter", "--net=/proc/" + strconv.Itoa(n.holder.Process.Pid) + "/ns/net"}
}

func (n *netns) inside(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		args := append(n.enter(), strings.Fields(c)...)
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// dial connects from within the namespace, for ports that only listen on its loopback.
func (n *netns) dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.sockets.Dial(ctx, "tcp", to, netip.Addr{})
}

func (n *netns) close() {
	if n.sockets != nil {
		n.sockets.Close()
	}
	n.holder.Process.Kill()
	n.holder.Wait()
}
