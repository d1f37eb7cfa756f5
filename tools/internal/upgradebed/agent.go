package upgradebed

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/api/zds"
)

// agent is one node's CNI agent: it gives the node's pod to every proxy that connects.
type agent struct {
	listener *net.UnixListener
	name     string
	netns    string

	mu    sync.Mutex // guards the rest
	conns []*net.UnixConn
}

func newAgent(socket, name, netns string) (*agent, error) {
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("CNI agent: %w", err)
	}
	a := &agent{listener: listener, name: name, netns: netns}
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			a.mu.Lock()
			a.conns = append(a.conns, conn)
			a.mu.Unlock()
			go func() { _ = a.introduce(conn) }() // a proxy that is not told connects again
		}
	}()
	return a, nil
}

func (a *agent) close() {
	a.listener.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, conn := range a.conns {
		conn.Close()
	}
}

func (a *agent) introduce(conn *net.UnixConn) error {
	buf := make([]byte, 1024)
	if _, err := conn.Read(buf); err != nil { // the greeting
		return err
	}
	file, err := os.Open(a.netns)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, message := range []struct {
		request *zds.WorkloadRequest
		rights  []byte
	}{
		{&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_Add{Add: &zds.AddWorkload{
			Uid: a.name, WorkloadInfo: &zds.WorkloadInfo{Name: a.name, Namespace: "shop", ServiceAccount: a.name},
		}}}, syscall.UnixRights(int(file.Fd()))},
		{&zds.WorkloadRequest{Payload: &zds.WorkloadRequest_SnapshotSent{SnapshotSent: &zds.SnapshotSent{}}}, nil},
	} {
		packet, err := proto.Marshal(message.request)
		if err != nil {
			return err
		}
		if _, _, err := conn.WriteMsgUnix(packet, message.rights, nil); err != nil {
			return err
		}
		if _, err := conn.Read(buf); err != nil { // the acknowledgement
			return err
		}
	}
	return nil
}
