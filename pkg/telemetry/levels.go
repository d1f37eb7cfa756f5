package telemetry

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Levels is the set of log levels in force: one for everything, and exceptions by scope.
// It can be changed while loggers use it.
type Levels struct {
	initial levelSet
	// current is replaced whole by Set and Reset, and only read by handlers.
	current atomic.Pointer[levelSet]
}

// levelSet is immutable once published.
type levelSet struct {
	base   slog.Level
	scopes map[string]slog.Level
}

// NewLevels starts with base for every scope.
func NewLevels(base slog.Level) *Levels {
	l := &Levels{initial: levelSet{base: base}}
	l.current.Store(&l.initial)
	return l
}

// enabled reports whether a record of this level and scope is written.
func (l *Levels) enabled(scope string, level slog.Level) bool {
	set := l.current.Load()
	if threshold, ok := set.scopes[scope]; ok {
		return level >= threshold
	}
	return level >= set.base
}

// Set applies a comma-separated list of changes, each "level", "scope=level" or "scope:level"; a bare level is the new
// level for everything without an exception. The levels are trace, debug, info, warn, error and off (none). On an error
// nothing changes.
func (l *Levels) Set(spec string) error {
	old := l.current.Load()
	next := &levelSet{base: old.base, scopes: maps.Clone(old.scopes)}
	if next.scopes == nil {
		next.scopes = map[string]slog.Level{}
	}
	for part := range strings.SplitSeq(spec, ",") {
		part = strings.TrimSpace(part)
		scope, name := "", part
		// The last separator divides: scopes such as "a::b" contain colons themselves.
		if i := strings.LastIndexAny(part, "=:"); i >= 0 {
			scope, name = strings.TrimRight(part[:i], ":"), part[i+1:]
		}
		level, err := ParseLevel(name)
		if err != nil {
			return fmt.Errorf("log level %q: %w", part, err)
		}
		if scope == "" {
			next.base = level
			continue
		}
		next.scopes[scope] = level
	}
	l.current.Store(next)
	return nil
}

// Reset returns to the levels of the start.
func (l *Levels) Reset() { l.current.Store(&l.initial) }

// String is in the form that Set takes, exceptions sorted by scope.
func (l *Levels) String() string {
	set := l.current.Load()
	parts := []string{levelName(set.base)}
	for _, scope := range slices.Sorted(maps.Keys(set.scopes)) {
		parts = append(parts, scope+"="+levelName(set.scopes[scope]))
	}
	return strings.Join(parts, ",")
}

const (
	// LevelTrace is below debug.
	LevelTrace = slog.Level(-8)
	// LevelOff is above everything that is logged.
	LevelOff = slog.Level(1 << 16)
)

// ParseLevel reads a level's name in any case; "none" is off, "warning" is warn.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "trace":
		return LevelTrace, nil
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "off", "none":
		return LevelOff, nil
	}
	return 0, fmt.Errorf("%q is no level: use trace, debug, info, warn, error or off", name)
}

// levelName rounds down to a named level.
func levelName(level slog.Level) string {
	switch {
	case level >= LevelOff:
		return "off"
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warn"
	case level >= slog.LevelInfo:
		return "info"
	case level >= slog.LevelDebug:
		return "debug"
	}
	return "trace"
}
