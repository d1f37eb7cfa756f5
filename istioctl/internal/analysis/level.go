package analysis

import (
	"fmt"
	"strings"
)

// Level is how bad a finding is. More is worse.
type Level int

// The levels.
const (
	Info Level = iota
	Warning
	Error
)

// String is the name that people read and write.
func (l Level) String() string {
	return [...]string{"Info", "Warning", "Error"}[min(max(l, Info), Error)]
}

// Set implements pflag.Value.
func (l *Level) Set(text string) error {
	for _, level := range []Level{Info, Warning, Error} {
		if strings.EqualFold(text, level.String()) {
			*l = level
			return nil
		}
	}
	return fmt.Errorf("%q is none of Info, Warning, Error", text)
}

// Type implements pflag.Value.
func (l *Level) Type() string { return "Level" }
