package l7

import (
	"regexp"
	"regexp/syntax"
)

// literalPrefix is what everything begins with that an expression matches from the start on; "" when that is nothing in particular.
func literalPrefix(re *regexp.Regexp) string {
	tree, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return "" // it was compiled, so this does not happen
	}
	text, _ := beginning(tree)
	return text
}

// beginning is the text that an expression begins with, and whether that is all that it matches.
func beginning(re *syntax.Regexp) (text string, whole bool) {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return "", false
		}
		return string(re.Rune), true
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpBeginLine:
		return "", true
	case syntax.OpCapture:
		return beginning(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			more, all := beginning(sub)
			if text += more; !all {
				return text, false
			}
		}
		return text, true
	case syntax.OpPlus:
		text, _ = beginning(re.Sub[0])
		return text, false
	case syntax.OpRepeat:
		if re.Min > 0 {
			text, _ = beginning(re.Sub[0])
		}
		return text, false
	}
	return "", false
}
