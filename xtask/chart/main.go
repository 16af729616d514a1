// Renders the Helm chart the way `helm template` does, from what Debian packages: Go's templates, the sprig functions
// and the JSON Schema validator, the same libraries that Helm 3 is made of.
//
// Usage: chart CHART RELEASE NAMESPACE [VALUES.yaml...]. Documents go to standard output in the order of installation. Only what the chart uses of Helm is here: no hooks, no dependencies, no cluster to look at.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/xeipuuv/gojsonschema"
	"sigs.k8s.io/yaml"
)

type object = map[string]interface{}

// apiVersions answers `.Capabilities.APIVersions.Has`: none beyond the built-in ones, as for `helm template`.
type apiVersions struct{}

// Has says whether the cluster serves an API.
func (apiVersions) Has(string) bool { return false }

// files answers `.Files` for a chart's folder.
type files string

// Get is the text of a file, empty if there is none.
func (folder files) Get(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(folder), name))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

func main() {
	if len(os.Args) < 4 {
		fail(errors.New("usage: chart CHART RELEASE NAMESPACE [VALUES.yaml...]"))
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	if err != nil {
		fail(err)
	}
	fmt.Print(text)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

func render(chart, release, namespace string, overlays []string) (string, error) {
	values, err := allValues(chart, overlays)
	if err != nil {
		return "", err
	}
	if err := validate(chart, values); err != nil {
		return "", err
	}
	about, err := readYAML(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return "", err
	}
	templates, names, err := parse(chart)
	if err != nil {
		return "", err
	}
	name := fmt.Sprint(about["name"])
	var all []document
	for _, file := range names {
		data := object{
			"Values":  values,
			"Chart":   object{"Name": name, "Version": about["version"], "AppVersion": about["appVersion"]},
			"Release": object{"Name": release, "Namespace": namespace, "Service": "Helm", "Revision": 1, "IsInstall": true, "IsUpgrade": false},
			"Capabilities": object{
				"APIVersions": apiVersions{},
				"KubeVersion": object{"Version": "v1.33.0", "Major": "1", "Minor": "33"},
			},
			"Files":    files(chart),
			"Template": object{"Name": name + "/templates/" + file, "BasePath": name + "/templates"},
		}
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, file, data); err != nil {
			return "", err
		}
		found, err := documents(name+"/templates/"+file, strings.ReplaceAll(text.String(), "<no value>", ""))
		if err != nil {
			return "", err
		}
		all = append(all, found...)
	}
	sort.SliceStable(all, func(a, b int) bool { return all[a].rank < all[b].rank })
	var out strings.Builder
	for _, one := range all {
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", one.source, one.text)
	}
	return out.String(), nil
}

// document is one object, as text.
type document struct {
	source, text string
	// Its place in the order of installation.
	rank int
}

// first are the kinds that others need, in the order in which Helm installs them; the rest comes later.
var first = []string{"Namespace", "Secret", "ConfigMap", "ServiceAccount", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "DaemonSet", "Deployment"}

// documents takes a rendered file apart, without what is empty, after a check that each part is YAML.
func documents(source, text string) ([]document, error) {
	var found []document
	for _, part := range strings.Split("\n"+text, "\n---") {
		part = strings.TrimSpace(part)
		var value object
		if err := yaml.UnmarshalStrict([]byte(part), &value); err != nil {
			return nil, fmt.Errorf("%s is no YAML: %w\n%s", source, err, part)
		}
		if len(value) == 0 {
			continue
		}
		rank := len(first)
		for place, kind := range first {
			if value["kind"] == kind {
				rank = place
			}
		}
		found = append(found, document{source: source, text: part, rank: rank})
	}
	return found, nil
}

// parse reads every template; names are those that make documents, in order.
func parse(chart string) (*template.Template, []string, error) {
	root := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	for name, function := range (template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var text strings.Builder
			err := root.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		"required": func(message string, value interface{}) (interface{}, error) {
			if value == nil || value == "" {
				return nil, errors.New(message)
			}
			return value, nil
		},
		"toYaml": func(value interface{}) (string, error) {
			text, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(text), "\n"), err
		},
		"fromYaml": func(text string) (object, error) {
			var value object
			err := yaml.Unmarshal([]byte(text), &value)
			return value, err
		},
	}) {
		functions[name] = function
	}
	root.Funcs(functions)

	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return nil, nil, err
	}
	sort.Strings(paths)
	var names []string
	for _, path := range paths {
		name := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		if _, err := root.New(name).Parse(string(text)); err != nil {
			return nil, nil, err
		}
		if !strings.HasPrefix(name, "_") && name != "NOTES.txt" {
			names = append(names, name)
		}
	}
	return root, names, nil
}

// allValues lays the named files over the chart's own values.
func allValues(chart string, overlays []string) (object, error) {
	values, err := readYAML(filepath.Join(chart, "values.yaml"))
	for _, file := range overlays {
		if err != nil {
			return nil, err
		}
		var over object
		over, err = readYAML(file)
		values = merged(values, over)
	}
	return values, err
}

// merged lays `over` over `under`: mappings key by key, null removes, everything else replaces.
func merged(under, over object) object {
	for key, value := range over {
		below, hadMap := under[key].(object)
		above, isMap := value.(object)
		switch {
		case value == nil:
			delete(under, key)
		case hadMap && isMap:
			under[key] = merged(below, above)
		default:
			under[key] = value
		}
	}
	return under
}

func validate(chart string, values object) error {
	schema, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		return err
	}
	document, err := json.Marshal(values)
	if err != nil {
		return err
	}
	result, err := gojsonschema.Validate(gojsonschema.NewBytesLoader(schema), gojsonschema.NewBytesLoader(document))
	if err != nil {
		return err
	}
	var problems []string
	for _, problem := range result.Errors() {
		problems = append(problems, problem.String())
	}
	if len(problems) > 0 {
		return fmt.Errorf("the values do not fit the schema: %s", strings.Join(problems, "; "))
	}
	return nil
}

func readYAML(path string) (object, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	value := object{}
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}
