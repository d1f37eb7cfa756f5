package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Confirm asks a question and returns whether the answer is yes. No answer is no.
func Confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprint(out, question+" (y/N) ")
	line, _ := bufio.NewReader(in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	return false
}
