package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitArgument is how a program knows that it is to be a container's first process for a moment.
const InitArgument = "sandbox-init"

// selfFD is the descriptor of this program's own file, which the container's file system need not have.
const selfFD = 3

// begunFD is the end of a pipe that is closed when the container's program runs, or the first process has ended.
const begunFD = 4

// initCommand runs this program as the first process of a container, which becomes the one that argv names. It closes begun then.
func initCommand(self, begun *os.File, argv []string) *exec.Cmd {
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", selfFD), append([]string{InitArgument}, argv...)...) //nolint:noctx // ended by terminate
	cmd.ExtraFiles = []*os.File{self, begun}
	return cmd
}

// Init makes /proc show the container's own processes, and becomes the program that argv names. It returns on failure only.
func Init(argv []string) error {
	unix.CloseOnExec(begunFD)
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if err := unix.Close(selfFD); err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ()) //nolint:forbidigo // handed on, not read
}
