package dump

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is what is printed unless -o asks for the whole.
type Table struct {
	Columns []string
	Rows    [][]string
	// Gap is the number of spaces between columns; those of the field differ by command.
	Gap int
}

// Write prints the table.
func (t *Table) Write(w io.Writer, headers bool) error {
	var buffer bytes.Buffer
	tabs := tabwriter.NewWriter(&buffer, 0, 8, max(t.Gap, 1), ' ', 0)
	rows := t.Rows
	if headers {
		rows = append([][]string{t.Columns}, rows...)
	}
	for _, row := range rows {
		if _, err := io.WriteString(tabs, strings.Join(row, "\t")+"\n"); err != nil {
			return err
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(buffer.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
