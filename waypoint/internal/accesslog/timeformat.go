package accesslog

import (
	"fmt"
	"strconv"
	"time"
)

// defaultTime is %START_TIME% without a format.
const defaultTime = "2006-01-02T15:04:05.000Z"

// timeFormat is a compiled strftime format.
type timeFormat []func(dst []byte, t time.Time) []byte

// compileTime reads the conversions of strftime that logs use, and Envoy's %f and %Nf: the fraction of a second, with N digits;
// %s is seconds since the epoch, with N more digits as %Ns.
func compileTime(format string) (timeFormat, error) {
	var out timeFormat
	literal := func(s string) {
		out = append(out, func(dst []byte, _ time.Time) []byte { return append(dst, s...) })
	}
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'h': "Jan", 'B': "January",
		'a': "Mon", 'A': "Monday", 'e': "_2", 'I': "03", 'p': "PM", 'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'R': "15:04",
		'z': "-0700", 'Z': "UTC", 'j': "002", 'c': "Mon Jan _2 15:04:05 2006",
	}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			start := i
			for i+1 < len(format) && format[i+1] != '%' {
				i++
			}
			literal(format[start : i+1])
			continue
		}
		if i++; i == len(format) {
			return nil, fmt.Errorf("the time format %q ends in %%", format)
		}
		digits := 9
		if c := format[i]; c >= '1' && c <= '9' && i+1 < len(format) {
			digits = int(c - '0')
			i++
			if format[i] != 'f' {
				return nil, fmt.Errorf("time format: %%%d%c is not supported", digits, format[i])
			}
		}
		switch c := format[i]; {
		case c == '%':
			literal("%")
		case c == 'f':
			out = append(out, fraction(digits))
		case c == 's':
			out = append(out, func(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, t.Unix(), 10) })
		case layouts[c] != "":
			layout := layouts[c]
			if c == 'Z' {
				literal("UTC")
				continue
			}
			out = append(out, func(dst []byte, t time.Time) []byte { return t.AppendFormat(dst, layout) })
		default:
			return nil, fmt.Errorf("time format: %%%c is not supported", c)
		}
	}
	return out, nil
}

func fraction(digits int) func([]byte, time.Time) []byte {
	return func(dst []byte, t time.Time) []byte {
		text := strconv.Itoa(1e9 + t.Nanosecond()) // ten digits, the first of which is 1
		return append(dst, text[1:1+digits]...)
	}
}

func (f timeFormat) appendTo(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if f == nil {
		return t.AppendFormat(dst, defaultTime)
	}
	for _, step := range f {
		dst = step(dst, t)
	}
	return dst
}
