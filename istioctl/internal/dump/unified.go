package dump

import "fmt"

const (
	// around is how many equal lines are shown around what differs.
	around = 3
	// mostCells bounds the work of finding equal lines in what differs; more of it is shown as replaced.
	mostCells = 4 << 20
)

// edit is a line of a diff: in both, only in the first ('-') or only in the second ('+').
type edit struct {
	kind byte
	line string
}

// unified is a diff as tools write it; no lines when there is nothing.
func unified(from, to string, a, b []string) []string {
	edits := compareLines(a, b)
	var out []string
	atA, atB := 1, 1 // numbers of the next lines
	for i := 0; i < len(edits); {
		if edits[i].kind == ' ' {
			i, atA, atB = i+1, atA+1, atB+1
			continue
		}
		start := max(0, i-around)
		end := hunkEnd(edits, i)
		if out == nil {
			out = append(out, "--- "+from, "+++ "+to)
		}
		firstA, firstB := atA-(i-start), atB-(i-start)
		var lines []string
		countA, countB := 0, 0
		for _, e := range edits[start:end] {
			lines = append(lines, string(e.kind)+e.line)
			if e.kind != '+' {
				countA++
			}
			if e.kind != '-' {
				countB++
			}
		}
		out = append(out, fmt.Sprintf("@@ -%s +%s @@", span(firstA, countA), span(firstB, countB)))
		out = append(out, lines...)
		i, atA, atB = end, firstA+countA, firstB+countB
	}
	return out
}

func span(first, count int) string {
	if count == 0 {
		first--
	}
	return fmt.Sprintf("%d,%d", first, count)
}

// hunkEnd is where what belongs together ends, with what is equal after it. Hunks whose surroundings touch are one.
func hunkEnd(edits []edit, i int) int {
	last := i
	for j := i; j < len(edits) && j-last <= 2*around; j++ {
		if edits[j].kind != ' ' {
			last = j
		}
	}
	return min(len(edits), last+around+1)
}

// compareLines returns all lines of both, in order.
func compareLines(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	same := 0
	for same < len(a) && same < len(b) && a[len(a)-1-same] == b[len(b)-1-same] {
		same++
	}
	for _, line := range a[len(a)-same:] {
		tail = append(tail, edit{' ', line})
	}
	return append(append(head, middle(a[:len(a)-same], b[:len(b)-same])...), tail...)
}

// middle finds the longest common subsequence.
func middle(a, b []string) []edit {
	var out []edit
	if len(a)*len(b) > mostCells {
		return append(only('-', a), only('+', b)...)
	}
	width := len(b) + 1
	longest := make([]int32, (len(a)+1)*width) // of the rests from i and j on
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				longest[i*width+j] = longest[(i+1)*width+j+1] + 1
				continue
			}
			longest[i*width+j] = max(longest[(i+1)*width+j], longest[i*width+j+1])
		}
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			out = append(out, edit{' ', a[i]})
			i, j = i+1, j+1
		case longest[(i+1)*width+j] >= longest[i*width+j+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[j]})
			j++
		}
	}
	return append(append(out, only('-', a[i:])...), only('+', b[j:])...)
}

func only(kind byte, lines []string) []edit {
	var out []edit
	for _, line := range lines {
		out = append(out, edit{kind, line})
	}
	return out
}
