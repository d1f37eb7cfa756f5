package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
)

// CPIO writes the tree in the form in which the kernel takes its first file system.
func (t *Tree) CPIO() ([]byte, error) {
	t.parents()
	var out bytes.Buffer
	pad := func() {
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
	}
	entry := func(number int, name string, mode int64, data []byte) {
		fmt.Fprintf(&out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		out.WriteString(name)
		out.WriteByte(0)
		pad()
		out.Write(data)
		pad()
	}
	for i, name := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[name]
		kinds := map[byte]int64{tar.TypeReg: 0o100000, tar.TypeDir: 0o040000, tar.TypeSymlink: 0o120000}
		data := n.data
		switch {
		case n.source != "":
			var err error
			if data, err = os.ReadFile(n.source); err != nil {
				return nil, err
			}
		case n.kind == tar.TypeSymlink:
			data = []byte(n.target)
		}
		entry(i+1, name, kinds[n.kind]|n.mode, data)
	}
	entry(0, "TRAILER!!!", 0, nil)
	return out.Bytes(), nil
}
