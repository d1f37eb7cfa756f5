// Package telemetry shapes what every component tells its operators: log lines, build information, and whether it is ready.
package telemetry

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// timeLayout is RFC 3339 in UTC with microseconds, as the field's log lines have it.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// scopeKey is the attribute that names a logger's scope; it is a column of its own, never an attribute of the line.
const scopeKey = "scope"

// Options of NewLogger.
type Options struct {
	// JSON selects one JSON object a line instead of tab-separated text.
	JSON bool
	// Level in force at the start for every scope.
	Level slog.Level
	// Scope of the returned logger; "default" when empty.
	Scope string
}

// NewLogger writes lines of the form
//
//	2026-01-02T15:04:05.000000Z<TAB>info<TAB>scope<TAB>message<TAB>key=value key="text"
//
// or, with JSON, objects with level, time, scope, message and then the attributes. Strings are quoted; numbers,
// booleans, addresses and other values are bare. Each line is one Write. The Levels returned change what is written.
func NewLogger(w io.Writer, options Options) (*slog.Logger, *Levels) {
	levels := NewLevels(options.Level)
	if options.Scope == "" {
		options.Scope = "default"
	}
	return slog.New(&handler{out: &output{w: w}, json: options.JSON, levels: levels, scope: options.Scope}), levels
}

// Scoped returns log under another scope.
func Scoped(log *slog.Logger, scope string) *slog.Logger {
	return log.With(slog.String(scopeKey, scope))
}

// output is shared by all handlers derived from one logger.
type output struct {
	mu sync.Mutex // guards w: one line at a time
	w  io.Writer
}

// handler implements slog.Handler. It is immutable; With… return copies.
type handler struct {
	out    *output
	json   bool
	levels *Levels
	scope  string
	prefix string // "group." for attributes added inside WithGroup
	attrs  []slog.Attr
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.levels.enabled(h.scope, level)
}

// WithAttrs implements slog.Handler; the attribute "scope" changes the column instead.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]slog.Attr(nil), h.attrs...)
	for _, attr := range attrs {
		if attr.Key == scopeKey && h.prefix == "" {
			next.scope = attr.Value.String()
			continue
		}
		attr.Key = h.prefix + attr.Key
		next.attrs = append(next.attrs, attr)
	}
	return &next
}

// WithGroup implements slog.Handler: the group's name is a prefix "name.".
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.prefix += name + "."
	return &next
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, record slog.Record) error {
	line := make([]byte, 0, 256)
	stamp := record.Time
	if stamp.IsZero() {
		stamp = time.Now()
	}
	if h.json {
		line = h.appendJSON(line, stamp, record)
	} else {
		line = h.appendText(line, stamp, record)
	}
	line = append(line, '\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(line)
	return err
}

func (h *handler) appendText(line []byte, stamp time.Time, record slog.Record) []byte {
	line = stamp.UTC().AppendFormat(line, timeLayout)
	line = append(line, '\t')
	line = append(line, levelName(record.Level)...)
	line = append(line, '\t')
	line = append(line, h.scope...)
	line = append(line, '\t')
	line = appendMessage(line, record.Message)
	separator := byte('\t')
	h.eachAttr(record, func(key string, value slog.Value) {
		line = append(line, separator)
		separator = ' '
		line = append(line, key...)
		line = append(line, '=')
		line = appendTextValue(line, value)
	})
	return line
}

func (h *handler) appendJSON(line []byte, stamp time.Time, record slog.Record) []byte {
	line = append(line, `{"level":`...)
	line = strconv.AppendQuote(line, levelName(record.Level))
	line = append(line, `,"time":"`...)
	line = stamp.UTC().AppendFormat(line, timeLayout)
	line = append(line, `","scope":`...)
	line = appendJSONString(line, h.scope)
	line = append(line, `,"message":`...)
	line = appendJSONString(line, record.Message)
	h.eachAttr(record, func(key string, value slog.Value) {
		line = append(line, ',')
		line = appendJSONString(line, key)
		line = append(line, ':')
		line = appendJSONValue(line, value)
	})
	return append(line, '}')
}

// eachAttr visits the logger's attributes, then the record's, groups flattened with dots.
func (h *handler) eachAttr(record slog.Record, visit func(string, slog.Value)) {
	for _, attr := range h.attrs {
		visitAttr("", attr, visit)
	}
	record.Attrs(func(attr slog.Attr) bool {
		visitAttr(h.prefix, attr, visit)
		return true
	})
}

func visitAttr(prefix string, attr slog.Attr, visit func(string, slog.Value)) {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attr.Key != "" {
			prefix += attr.Key + "."
		}
		for _, member := range value.Group() {
			visitAttr(prefix, member, visit)
		}
		return
	}
	if attr.Key != "" {
		visit(prefix+attr.Key, value)
	}
}

// appendMessage keeps a line one line: control characters are escaped.
func appendMessage(line []byte, message string) []byte {
	quoted := strconv.AppendQuote(nil, message)
	for _, c := range []byte(message) {
		if c < ' ' || c == 0x7f {
			return append(line, quoted[1:len(quoted)-1]...)
		}
	}
	return append(line, message...)
}

func appendTextValue(line []byte, value slog.Value) []byte {
	switch value.Kind() {
	case slog.KindString:
		return strconv.AppendQuote(line, value.String())
	case slog.KindTime:
		return value.Time().UTC().AppendFormat(line, timeLayout)
	case slog.KindAny:
		switch v := value.Any().(type) {
		case netip.AddrPort, netip.Addr, netip.Prefix:
			return fmt.Append(line, v)
		case error:
			return strconv.AppendQuote(line, v.Error())
		case fmt.Stringer:
			return strconv.AppendQuote(line, v.String())
		default:
			return strconv.AppendQuote(line, fmt.Sprint(v))
		}
	}
	return append(line, value.String()...)
}

func appendJSONValue(line []byte, value slog.Value) []byte {
	switch value.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64:
		return append(line, value.String()...)
	case slog.KindTime:
		return appendJSONString(line, value.Time().UTC().Format(timeLayout))
	case slog.KindFloat64, slog.KindAny:
		switch v := value.Any().(type) {
		case error:
			return appendJSONString(line, v.Error())
		case json.Marshaler, encoding.TextMarshaler:
			if encoded, err := json.Marshal(v); err == nil {
				return append(line, encoded...)
			}
		case fmt.Stringer:
			return appendJSONString(line, v.String())
		default:
			if encoded, err := json.Marshal(v); err == nil {
				return append(line, encoded...)
			}
		}
	}
	return appendJSONString(line, value.String())
}

func appendJSONString(line []byte, s string) []byte {
	encoded, err := json.Marshal(s)
	if err != nil {
		return strconv.AppendQuote(line, s)
	}
	return append(line, encoded...)
}
