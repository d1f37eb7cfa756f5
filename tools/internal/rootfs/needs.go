package rootfs

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"strings"
)

// CheckLibraries reports programs and libraries that need a library or a loader that isn't in the tree, and those for
// another architecture.
func (t *Tree) CheckLibraries(arch string) error {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	have := map[string]bool{}
	for _, name := range t.Files() {
		if strings.Contains(name, "/lib") && strings.Contains(path.Base(name), ".so") && t.Has(name) {
			have[path.Base(name)] = true
		}
	}
	var problems []error
	for _, name := range t.Files() {
		data, err := t.Read(name)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: a link to nothing", name))
			continue
		}
		if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
			continue
		}
		if err := t.checkProgram(data, machine, have); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

func (t *Tree) checkProgram(data []byte, machine elf.Machine, have map[string]bool) error {
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer program.Close()
	if program.Machine != machine {
		return fmt.Errorf("is for %s, want %s", program.Machine, machine)
	}
	needed, err := program.ImportedLibraries()
	if err != nil {
		return err
	}
	var problems []error
	for _, library := range needed {
		if !have[library] {
			problems = append(problems, fmt.Errorf("needs %s", library))
		}
	}
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		loader := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(loader, 0); err != nil {
			return err
		}
		if name := string(bytes.TrimRight(loader, "\x00")); !t.Has(name) {
			problems = append(problems, fmt.Errorf("needs the loader %s", name))
		}
	}
	return errors.Join(problems...)
}
