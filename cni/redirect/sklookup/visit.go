package sklookup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/cni/internal/netns"
)

// noSlot in an order leaves the socket out of the map of listeners.
const noSlot = ^uint32(0)

// order is what is to be done with one socket.
type order struct {
	Mark    uint32 // SO_MARK to set; 0 leaves it
	Marked  int32  // what setting it gave; unseen before
	Netns   uint32 // of the key in the map of listeners
	Slot    uint32
	Entered int32 // what entering it there gave; unseen before
	Unused  uint32
}

// unseen is the answer of a socket that has not been met.
const unseen = 1

// Offsets in an order.
const (
	orderMark    = int16(unsafe.Offsetof(order{}.Mark))
	orderMarked  = int16(unsafe.Offsetof(order{}.Marked))
	orderNetns   = int16(unsafe.Offsetof(order{}.Netns))
	orderSlot    = int16(unsafe.Offsetof(order{}.Slot))
	orderEntered = int16(unsafe.Offsetof(order{}.Entered))
)

// noPreallocation is BPF_F_NO_PREALLOC: memory is taken for the orders that there are.
const noPreallocation = 1

// maxOrders bounds the sockets that one visit changes.
const maxOrders = 1 << 16

// visitor changes sockets of other processes: programs that the kernel runs for every socket of a network namespace. Nothing of it
// outlives the process. Safe for concurrent use.
type visitor struct {
	mu       sync.Mutex // one visit at a time: orders has those of one
	orders   *ebpf.Map
	tcp, udp *link.Iter
	close    []io.Closer
}

// newVisitor loads the programs.
func newVisitor(listeners *ebpf.Map) (*visitor, error) {
	orders, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "mesh_orders", Type: ebpf.Hash, KeySize: 8, ValueSize: uint32(unsafe.Sizeof(order{})), MaxEntries: maxOrders,
		Flags: noPreallocation,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of orders: %w", err)
	}
	v := &visitor{orders: orders, close: []io.Closer{orders}}
	for _, kind := range []struct {
		name string
		into **link.Iter
	}{{"tcp", &v.tcp}, {"udp", &v.udp}} {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "mesh_" + kind.name, Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: kind.name, License: gpl,
			Instructions: visit(orders.FD(), listeners.FD(), kind.name == "tcp"),
		})
		if err != nil {
			v.Close()
			return nil, fmt.Errorf("load the iterator of %s sockets: %w", kind.name, err)
		}
		v.close = append(v.close, program)
		if *kind.into, err = link.AttachIter(link.IterOptions{Program: program}); err != nil {
			v.Close()
			return nil, fmt.Errorf("attach the iterator of %s sockets: %w", kind.name, err)
		}
		v.close = append(v.close, *kind.into)
	}
	return v, nil
}

// Close lets go of the programs.
func (v *visitor) Close() {
	for _, c := range v.close {
		c.Close()
	}
}

// visit carries out the order of a socket, which it finds by the socket's cookie. Only TCP sockets can be marked.
func visit(orders, listeners int, marks bool) asm.Instructions {
	const (
		cookie = -8
		k      = -16
		value  = -24
	)
	out := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord), // the socket; none at the end
		asm.JEq.Imm(asm.R7, 0, "end"),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.FnGetSocketCookie.Call(),
		asm.StoreMem(asm.R10, cookie, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, orders),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, cookie),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Reg(asm.R8, asm.R0),
	}
	if marks {
		out = append(
			out,
			asm.LoadMem(asm.R1, asm.R8, orderMark, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "enter"),
			asm.StoreMem(asm.R10, value, asm.R1, asm.Word),
			asm.Mov.Reg(asm.R1, asm.R7),
			asm.Mov.Imm(asm.R2, unix.SOL_SOCKET),
			asm.Mov.Imm(asm.R3, unix.SO_MARK),
			asm.Mov.Reg(asm.R4, asm.R10),
			asm.Add.Imm(asm.R4, value),
			asm.Mov.Imm(asm.R5, 4),
			asm.FnSetsockopt.Call(),
			asm.StoreMem(asm.R8, orderMarked, asm.R0, asm.Word),
		)
	}
	return append(
		out,
		asm.LoadMem(asm.R1, asm.R8, orderSlot, asm.Word).WithSymbol("enter"),
		asm.JEq.Imm32(asm.R1, -1, "end"),
		asm.StoreMem(asm.R10, k+4, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R8, orderNetns, asm.Word),
		asm.StoreMem(asm.R10, k, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, listeners),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, k),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.StoreMem(asm.R8, orderEntered, asm.R0, asm.Word),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
		asm.Return(),
	)
}

// carryOut does what is ordered for sockets of the network namespace ns, by cookie. Sockets that have ended meanwhile are no error.
func (v *visitor) carryOut(ns *os.File, iterator *link.Iter, orders map[uint64]order) error {
	if len(orders) == 0 {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for cookie, o := range orders {
		o.Marked, o.Entered = unseen, unseen
		if err := v.orders.Put(cookie, o); err != nil {
			return fmt.Errorf("order for a socket: %w", err)
		}
	}
	err := netns.Do(ns, func() error {
		walk, err := iterator.Open() // takes the namespace of the thread
		if err != nil {
			return err
		}
		defer walk.Close()
		_, err = io.Copy(io.Discard, walk)
		return err
	})
	if err != nil {
		err = fmt.Errorf("visit the sockets: %w", err)
	}
	for cookie := range orders {
		var done order
		if lookErr := v.orders.LookupAndDelete(cookie, &done); lookErr != nil {
			err = errors.Join(err, fmt.Errorf("order for a socket: %w", lookErr))
		}
		if done.Marked < 0 {
			err = errors.Join(err, fmt.Errorf("mark a socket: %w", unix.Errno(-done.Marked)))
		}
		if done.Entered < 0 {
			err = errors.Join(err, fmt.Errorf("enter a listener: %w", unix.Errno(-done.Entered)))
		}
	}
	return err
}
