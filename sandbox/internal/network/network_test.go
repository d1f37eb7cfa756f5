package network_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/network"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/ns"
)

// TestPodsReachEachOther makes two nodes with a pod each, and a second pod on the first, by the stock CNI plugins.
func TestPodsReachEachOther(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	nodes := twoNodes(t)
	a, _ := addPod(ctx, t, nodes[0], "a")
	_, b := addPod(ctx, t, nodes[1], "b")
	_, c := addPod(ctx, t, nodes[0], "c")
	for _, to := range append(b, c...) {
		if err := talk(ctx, a, to); err != nil {
			t.Errorf("from a to %s: %v", to, err)
		}
	}
	if err := talk(ctx, nodes[0].Net, b[0]); err != nil {
		t.Errorf("from node-1 to a pod of node-2: %v", err)
	}
}

// twoNodes are joined by a fabric.
func twoNodes(t *testing.T) []*network.Node {
	t.Helper()
	dir := t.TempDir()
	fabricPin, nodes := filepath.Join(dir, "fabric"), []*network.Node{}
	fabric, err := network.NewFabric(fabricPin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fabric.Close(); _ = ns.Unpin(fabricPin) })
	var joined []*os.File
	for i := 1; i <= 2; i++ {
		plan := network.PlanNode(i)
		pin := filepath.Join(dir, plan.Name+"-pin")
		node, err := network.NewNode(plan, filepath.Join(dir, plan.Name), pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { node.Close(); _ = ns.Unpin(pin) })
		if err := fabric.Join(plan, node.Net, joined); err != nil {
			t.Fatal(err)
		}
		joined = append(joined, node.Net)
		nodes = append(nodes, node)
	}
	return nodes
}

func addPod(ctx context.Context, t *testing.T, node *network.Node, name string) (*os.File, []netip.Addr) {
	t.Helper()
	cni := network.NewCNI(node, []string{"/usr/lib/cni"})
	if err := cni.WriteConfig(); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(node.PinDir(), name)
	file, err := ns.NewNet(pin)
	if err != nil {
		t.Fatal(err)
	}
	if err := network.PreparePod(file); err != nil {
		t.Fatal(err)
	}
	pod := network.PodNet{ID: name, Pin: name, Namespace: "shop", Name: name, UID: name}
	addrs, err := cni.Add(ctx, pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) != 2 || !addrs[0].Is4() || !addrs[1].Is6() {
		t.Errorf("pod %s has addresses %v, want one of each family", name, addrs)
	}
	t.Cleanup(func() {
		if err := cni.Delete(context.WithoutCancel(ctx), pod); err != nil {
			t.Error(err)
		}
		file.Close()
		_ = ns.Unpin(pin)
	})
	serve(t, file)
	return file, addrs
}

func serve(t *testing.T, file *os.File) {
	t.Helper()
	var l net.Listener
	err := ns.Set{Net: file}.Do(func() (err error) {
		l, err = net.Listen("tcp", ":8080")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
}

func talk(ctx context.Context, from *os.File, to netip.Addr) error {
	return ns.Set{Net: from}.Do(func() error {
		dialer := net.Dialer{Timeout: 20 * time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(to, 8080).String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
