// Package pluginlog takes what the CNI plugin has logged into the agent's own log: the plugin lives for one command, and the container
// runtime keeps nothing of what it says.
package pluginlog

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/isthmus-mesh/isthmus/cni/internal/pluginapi"
	"github.com/isthmus-mesh/isthmus/pkg/telemetry"
)

// Scope is that of the plugin's lines in the agent's log.
const Scope = "cni-plugin"

// Bounds of what the plugin sends.
const (
	maxBody  = 1 << 20 // bytes of a request
	maxLine  = 16 << 10
	maxKey   = 64
	maxAttrs = 32
)

// Handler writes the plugin's lines to log, under Scope and at their own levels.
func Handler(log *slog.Logger) http.Handler {
	log = telemetry.Scoped(log, Scope)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pluginapi.PathLog, func(w http.ResponseWriter, r *http.Request) {
		var lines []string
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&lines); err != nil {
			log.WarnContext(r.Context(), "lines of the plugin cannot be read", "error", err)
			http.Error(w, "lines: "+err.Error(), http.StatusBadRequest)
			return
		}
		for _, line := range lines {
			write(r.Context(), log, Parse(line))
		}
	})
	return mux
}

func write(ctx context.Context, log *slog.Logger, e Entry) {
	if !log.Enabled(ctx, e.Level) {
		return
	}
	record := slog.NewRecord(e.Time, e.Level, e.Message, 0)
	record.AddAttrs(e.Attrs...)
	_ = log.Handler().Handle(ctx, record) // where else should it be said
}

// Entry is one line of the plugin's log.
type Entry struct {
	Level   slog.Level
	Time    time.Time // zero if the line has none
	Message string
	Attrs   []slog.Attr // by name
}

// Parse reads a line. One that is no JSON object becomes the message itself, at the level of warnings. No part of an Entry has
// control characters, other than in values, which the log quotes.
func Parse(line string) Entry {
	cut := len(line) > maxLine
	if cut {
		line = strings.ToValidUTF8(line[:maxLine], "")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &fields); err != nil || fields == nil {
		e := Entry{Level: slog.LevelWarn, Message: clean(strings.TrimSpace(line))}
		if cut {
			e.Attrs = []slog.Attr{slog.Bool("truncated", true)}
		}
		return e
	}
	e := Entry{Level: slog.LevelInfo}
	text := func(keys ...string) (string, bool) {
		for _, key := range keys {
			var s string
			if raw, ok := fields[key]; ok && json.Unmarshal(raw, &s) == nil && string(raw) != "null" {
				delete(fields, key)
				return s, true
			}
		}
		return "", false
	}
	message, _ := text("msg", "message")
	e.Message = clean(message)
	if name, ok := text("level"); ok {
		level, known := levelOf(name)
		if e.Level = level; !known {
			e.Attrs = append(e.Attrs, slog.String("plugin.level", name))
		}
	}
	if stamp, ok := text("time", "ts"); ok {
		parsed, err := time.Parse(time.RFC3339Nano, stamp)
		if e.Time = parsed; err != nil {
			e.Attrs = append(e.Attrs, slog.String("plugin.time", stamp))
		}
	}
	for _, key := range []string{"scope", "logger"} {
		if name, ok := text(key); ok && name != Scope {
			e.Attrs = append(e.Attrs, slog.String("plugin."+key, name))
		}
	}
	e.Attrs = append(e.Attrs, attrs(fields)...)
	return e
}

// levelOf reads the names of levels, the plugin's and those of other plugins; one that is not known is that of information.
func levelOf(name string) (level slog.Level, known bool) {
	switch strings.ToLower(name) {
	case "fatal", "panic", "dpanic":
		return slog.LevelError, true
	}
	level, err := telemetry.ParseLevel(name)
	if err != nil || level >= telemetry.LevelOff {
		return slog.LevelInfo, false
	}
	return level, true
}

func attrs(fields map[string]json.RawMessage) []slog.Attr {
	var out []slog.Attr
	left := 0
	for _, key := range sortedKeys(fields) {
		if len(out) == maxAttrs {
			left++
			continue
		}
		out = append(out, slog.Attr{Key: keyOf(key), Value: valueOf(fields[key])})
	}
	if left > 0 {
		out = append(out, slog.Int("plugin.left_out", left))
	}
	return out
}

func sortedKeys(fields map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// keyOf makes a name that can neither end a line nor pass for a column of the agent's.
func keyOf(key string) string {
	key = strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-/", r)) {
			return r
		}
		return '_'
	}, key)
	if len(key) > maxKey {
		key = key[:maxKey]
	}
	switch key {
	case "", "level", "time", "scope", "message", "msg":
		return "plugin." + key
	}
	return key
}

// valueOf keeps what the log can show as it is; the rest is shown as JSON.
func valueOf(raw json.RawMessage) slog.Value {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return slog.StringValue(string(raw))
	}
	switch v := value.(type) {
	case string:
		return slog.StringValue(v)
	case bool:
		return slog.BoolValue(v)
	case float64:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			return slog.Int64Value(n)
		}
		return slog.Float64Value(v)
	}
	return slog.StringValue(string(raw))
}

// clean escapes what could end a line, move the cursor, or hide something of the message.
func clean(message string) string {
	if strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		quoted := strconv.Quote(message)
		return quoted[1 : len(quoted)-1]
	}
	return message
}
