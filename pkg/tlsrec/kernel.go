package tlsrec

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's TLS, linux/tls.h. Only what is sent goes through it: tickets and KeyUpdates of the peer are for this package to read.
const (
	kernelULP     = "tls"
	kernelTX      = 1 // TLS_TX
	kernelSetType = 1 // TLS_SET_RECORD_TYPE
)

// kernelCipher is a cipher suite as the kernel calls it: the number, and how much of the IV it wants as the salt.
func (s *suite) kernelCipher() (cipher uint16, salt int) {
	switch s.id {
	case tls.TLS_AES_128_GCM_SHA256:
		return 51, 4
	case tls.TLS_AES_256_GCM_SHA384:
		return 52, 4
	default: // ChaCha20-Poly1305
		return 54, 0
	}
}

// kernelInfo is the structure that tells the kernel of the keys for what is sent next. The caller clears it.
func (k *keys) kernelInfo() ([]byte, error) {
	if k.aead == nil {
		return nil, errNoKeys
	}
	key, err := k.suite.expand(k.secret, "key", k.suite.keyLen)
	if err != nil {
		return nil, fmt.Errorf("derive a record key: %w", err)
	}
	defer clear(key)
	cipher, salt := k.suite.kernelCipher()
	info := make([]byte, 0, 64)
	info = binary.NativeEndian.AppendUint16(info, tls.VersionTLS13)
	info = binary.NativeEndian.AppendUint16(info, cipher)
	info = append(info, k.iv[salt:]...)
	info = append(info, key...)
	info = append(info, k.iv[:salt]...)
	return binary.BigEndian.AppendUint64(info, k.seq), nil
}

// lingerTime bounds how long a socket stays open for what the kernel has taken.
const lingerTime = 30 * time.Second

// full tells whether the socket takes nothing now.
func (c *Conn) full() bool {
	full := false
	err := c.control(func(fd int) error { full = !writable(fd); return nil })
	return err == nil && full
}

func writable(fd int) bool {
	events := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(events, 0)
	return err != nil || n > 0
}

// linger keeps the socket open behind c until it takes something again. Unlike that of plain TCP, a kernel's TLS forgets what does not go at
// once when a socket is closed: up to a record, which was taken. Called with tx.mu held, when c closes; with farewell close_notify follows.
func (c *Conn) linger(farewell bool) {
	tcp, ok := c.nc.(*net.TCPConn)
	if !ok {
		return
	}
	file, err := tcp.File()
	if err != nil {
		return // best effort
	}
	go func() {
		behind, err := net.FileConn(file)
		file.Close()
		if err != nil {
			return
		}
		defer behind.Close()
		raw, err := behind.(*net.TCPConn).SyscallConn()
		if err != nil {
			return
		}
		behind.SetWriteDeadline(time.Now().Add(lingerTime))
		_ = raw.Write(func(fd uintptr) bool {
			if !writable(int(fd)) {
				return false
			}
			if farewell {
				_ = sendRecordNow(int(fd), typeAlert, []byte{1, byte(AlertCloseNotify)})
			}
			return true
		})
	}()
}

// seqLen is the size of the sequence number, the last field of the kernel's structure.
const seqLen = 8

// SealInKernel has the kernel seal what c sends from here on; what it receives is opened as before. Where the kernel is not able to, it
// says why, and c goes on by itself. See [KernelSeals].
func (c *Conn) SealInKernel() error {
	tx := &c.tx
	tx.mu.Lock()
	defer tx.mu.Unlock()
	switch {
	case tx.err != nil:
		return tx.err
	case c.raw == nil:
		return errors.New("seal in the kernel: not a TCP socket")
	case tx.kernel || len(tx.unsent) > 0:
		return errors.New("seal in the kernel: sending has begun")
	}
	err := c.control(func(fd int) error { return setOption(fd, unix.IPPROTO_TCP, unix.TCP_ULP, []byte(kernelULP)) })
	if err != nil {
		return fmt.Errorf("seal in the kernel: TCP_ULP: %w", err)
	}
	if err := c.giveKeys(); err != nil {
		return fmt.Errorf("seal in the kernel: %w", err) // a socket with the protocol and without keys is a plain one
	}
	tx.kernel = true
	return nil
}

// giveKeys tells the kernel of the keys for what is sent from here on. Called with tx.mu held.
func (c *Conn) giveKeys() error {
	info, err := c.tx.keys.kernelInfo()
	if err != nil {
		return err
	}
	defer clear(info)
	if err := c.control(func(fd int) error { return setOption(fd, unix.SOL_TLS, kernelTX, info) }); err != nil {
		return fmt.Errorf("TLS_TX: %w", err)
	}
	return nil
}

// checkKernel makes sure that the socket is sealed by whom the state says: data must never leave unsealed, nor sealed twice. With sealed
// the kernel must have the very keys of c, unless c has ended sending and has none.
func (c *Conn) checkKernel(sealed, ended bool) error {
	if c.raw == nil {
		if sealed {
			return errors.New("a state whose records the kernel seals, and no TCP socket")
		}
		return nil
	}
	has := make([]byte, 64)
	defer clear(has)
	n, err := c.option(unix.IPPROTO_TCP, unix.TCP_ULP, has)
	if err != nil {
		return fmt.Errorf("ask who seals a connection's records: %w", err)
	}
	if name, _, _ := bytes.Cut(has[:n], []byte{0}); string(name) != kernelULP {
		if sealed {
			return errors.New("a state whose records the kernel seals, and a socket whose it does not")
		}
		return nil
	}
	if !sealed {
		return errors.New("a state whose records the kernel does not seal, and a socket whose it does")
	}
	if ended {
		return nil
	}
	want, err := c.tx.keys.kernelInfo()
	if err != nil {
		return err
	}
	defer clear(want)
	if n, err = c.option(unix.SOL_TLS, kernelTX, has[:len(want)]); err != nil {
		return fmt.Errorf("ask for the keys that seal a connection's records: %w", err)
	}
	if keys := len(want) - seqLen; n != len(want) || !bytes.Equal(has[:keys], want[:keys]) {
		return errors.New("a state whose keys are not those that the kernel seals with")
	}
	return nil
}

// setOption is setsockopt without a copy of the value, which may be a key.
func setOption(fd, level, name int, value []byte) error {
	_, _, errno := syscall.Syscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// option is getsockopt into memory of the caller; n is the length of the value.
func (c *Conn) option(level, name int, value []byte) (n int, err error) {
	size := uint32(len(value))
	err = c.control(func(fd int) error {
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
			uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return int(size), err
}

// control calls fn with the socket, which must not block.
func (c *Conn) control(fn func(fd int) error) error {
	var err error
	if failed := c.raw.Control(func(fd uintptr) { err = fn(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

// counted takes note of records that the kernel has made of n bytes, of which it says nothing: at most that many.
func (k *keys) counted(n int) { k.seq += uint64(n)/maxContent + 1 }

// updateInKernel sends a KeyUpdate and gives the kernel the next keys. An error of a deadline has changed nothing. Called with tx.mu held.
func (c *Conn) updateInKernel(request byte) error {
	tx := &c.tx
	message := []byte{messageKeyUpdate, 0, 0, 1, request}
	if err := c.sendRecord(typeHandshake, message); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			tx.end(err)
		}
		return err
	}
	err := tx.keys.update()
	if err == nil {
		err = c.giveKeys()
	}
	if err != nil {
		tx.end(err) // the peer expects keys that the kernel does not have
	}
	return err
}

// sendRecord has the kernel make a record of another type than data, and waits for room. Called with tx.mu held.
func (c *Conn) sendRecord(typ recordType, content []byte) error {
	var err error
	failed := c.raw.Write(func(fd uintptr) bool {
		err = sendRecordNow(int(fd), typ, content)
		return !errors.Is(err, unix.EAGAIN)
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return &net.OpError{Op: "write", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError("sendmsg", err)}
	}
	c.tx.keys.counted(len(content))
	return nil
}

// sendRecordNow is sendRecord without waiting: EAGAIN says that there is no room.
func sendRecordNow(fd int, typ recordType, content []byte) error {
	control := make([]byte, unix.CmsgSpace(1))
	head := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	head.Level, head.Type = unix.SOL_TLS, kernelSetType
	head.SetLen(unix.CmsgLen(1))
	control[unix.CmsgLen(0)] = byte(typ)
	for {
		_, err := unix.SendmsgN(fd, content, control, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
