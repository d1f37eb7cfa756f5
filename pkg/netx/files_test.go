package netx

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// unixPair is both ends of a connection that keeps messages apart.
func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	address := &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(t.TempDir(), "s")}
	l, err := net.ListenUnix(address.Net, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix(address.Net, nil, address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// watched is the writing end of a pipe, and a check that all copies of it are closed: then its reader sees the end at once.
func watched(t *testing.T) (w *os.File, closed func() bool) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	w = os.NewFile(uintptr(fds[1]), "pipe")
	t.Cleanup(func() { w.Close() })
	return w, func() bool {
		n, err := unix.Read(fds[0], make([]byte, 1))
		return n == 0 && err == nil
	}
}

func TestReceiveFiles(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, most int
		truncated  bool
	}{
		{"none", 0, 2, false},
		{"one", 1, 2, false},
		{"as many as may come", 2, 2, false},
		{"more than may come", 3, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := unixPair(t)
			w, closed := watched(t)
			var rights []byte
			if tt.sent > 0 {
				fds := make([]int, tt.sent)
				for i := range fds {
					fds[i] = int(w.Fd())
				}
				rights = unix.UnixRights(fds...)
			}
			if _, _, err := a.WriteMsgUnix([]byte("hello"), rights, nil); err != nil {
				t.Fatal(err)
			}
			w.Close()
			text := make([]byte, 16)
			n, flags, files, err := ReceiveFiles(b, text, tt.most, "pipe")
			if err != nil || string(text[:n]) != "hello" || len(files) != min(tt.sent, tt.most) {
				t.Fatalf("%q, %d files, %v", text[:n], len(files), err)
			}
			if truncated := flags&unix.MSG_CTRUNC != 0; truncated != tt.truncated {
				t.Errorf("truncated: %v", truncated)
			}
			for _, f := range files {
				if f.Name() != "pipe" {
					t.Errorf("a file is called %q", f.Name())
				}
			}
			if len(files) > 0 && closed() {
				t.Error("closed before anybody did")
			}
			CloseFiles(files)
			if !closed() {
				t.Error("a descriptor is still open")
			}
		})
	}
}

func TestReceiveFilesOfAConnectionThatEnded(t *testing.T) {
	_, b := unixPair(t)
	b.Close()
	if n, _, files, err := ReceiveFiles(b, make([]byte, 1), 1, "pipe"); err == nil || n != 0 || files != nil {
		t.Errorf("%d bytes, %v, %v", n, files, err)
	}
}

// TestControlMessages: what the kernel does not send must leave nothing open either.
func TestControlMessages(t *testing.T) {
	other := append([]byte(nil), unix.UnixRights(0)...)
	other[8] = unix.SOL_SOCKET + 1 // the level, in the order of bytes of every machine this runs on
	for _, tt := range []struct {
		name   string
		after  []byte
		fails  bool
		amount int
	}{
		{"nothing more", nil, false, 1},
		{"one of another kind", other, false, 1},
		{"a head cut short", []byte{1, 2, 3}, false, 1},
		{"a length of nonsense", make([]byte, unix.SizeofCmsghdr), true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, closed := watched(t)
			fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			files, err := filesOf(append(unix.UnixRights(fd), tt.after...), "pipe")
			if (err != nil) != tt.fails || len(files) != tt.amount {
				t.Errorf("%d files, %v", len(files), err)
			}
			if closed() != tt.fails {
				t.Errorf("closed: %v", !tt.fails)
			}
			CloseFiles(files)
			if !closed() {
				t.Error("a descriptor is still open")
			}
		})
	}
}
