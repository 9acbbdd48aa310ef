// Drives go-kong, the client library of Kong's own tools, over every entity: create, get, by name, list, update, delete,
// and nested. Usage: go-kong ADMIN_URL CERTIFICATE_FILE KEY_FILE. Prints a line a step, and exits with 1 at the first
// that is not as a client expects.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"

	"github.com/kong/go-kong/kong"
)

var ctx = context.Background()

// What is deleted at the end, last first.
var leftovers []func()

func check(step string, err error) {
	if err != nil {
		step = fmt.Sprintf("%s: %v", step, err)
	}
	expect(step, err == nil)
}

func expect(step string, holds bool) {
	if !holds {
		fmt.Println("FAILED", step)
		os.Exit(1)
	}
	fmt.Println(step)
}

func read(file string) *string {
	text, err := os.ReadFile(file)
	check("read "+file, err)
	return kong.String(string(text))
}

// The operations of one kind.
type crud[T any] struct {
	create func(*T) (*T, error)
	// By id, and by name if there is one.
	get    func(*string) (*T, error)
	list   func() ([]*T, error)
	update func(*T) (*T, error)
	remove func(*string) error
	id     func(*T) *string
	name   func(*T) *string
	// Changes an entity, and says whether it is changed.
	change  func(*T)
	changed func(*T) bool
}

func drive[T any](kind string, of crud[T], entity *T) *T {
	made, err := of.create(entity)
	check(kind+" create", err)
	id := of.id(made)
	got, err := of.get(id)
	check(kind+" get", err)
	expect(kind+" get: the same", *of.id(got) == *id)
	if of.name != nil {
		got, err = of.get(of.name(made))
		check(kind+" get by name", err)
		expect(kind+" get by name: the same", *of.id(got) == *id)
	}
	all, err := of.list()
	check(kind+" list", err)
	expect(kind+" list: has it", slices.ContainsFunc(all, func(one *T) bool { return *of.id(one) == *id }))
	if of.update != nil {
		of.change(got)
		got, err = of.update(got)
		check(kind+" update", err)
		expect(kind+" update: changed", of.changed(got))
	}
	leftovers = append(leftovers, func() {
		check(kind+" delete", of.remove(id))
		_, err := of.get(id)
		expect(kind+" get: gone", kong.IsNotFoundErr(err))
	})
	return got
}

func main() {
	client, err := kong.NewClient(kong.String(os.Args[1]), http.DefaultClient)
	check("client", err)
	certificate, key := read(os.Args[2]), read(os.Args[3])

	info, err := client.Info.Get(ctx)
	check("info", err)
	_, err = kong.ParseSemanticVersion(info.Version)
	check("info version", err)
	expect("info database", info.Configuration.Database == "postgres")
	_, err = client.Status(ctx)
	check("status", err)
	defaults(client)

	service := drive("services", crud[kong.Service]{
		create: func(one *kong.Service) (*kong.Service, error) { return client.Services.Create(ctx, one) },
		get:    func(key *string) (*kong.Service, error) { return client.Services.Get(ctx, key) },
		list:   func() ([]*kong.Service, error) { return client.Services.ListAll(ctx) },
		update: func(one *kong.Service) (*kong.Service, error) { return client.Services.Update(ctx, one) },
		remove: func(key *string) error { return client.Services.Delete(ctx, key) },
		id:     func(one *kong.Service) *string { return one.ID }, name: func(one *kong.Service) *string { return one.Name },
		change: func(one *kong.Service) { one.Retries = kong.Int(7) }, changed: func(one *kong.Service) bool { return *one.Retries == 7 },
	}, &kong.Service{Name: kong.String("s"), Host: kong.String("example.com")})

	route := drive("routes", crud[kong.Route]{
		create: func(one *kong.Route) (*kong.Route, error) { return client.Routes.CreateInService(ctx, service.ID, one) },
		get:    func(key *string) (*kong.Route, error) { return client.Routes.Get(ctx, key) },
		list: func() ([]*kong.Route, error) {
			all, _, err := client.Routes.ListForService(ctx, service.ID, nil)
			return all, err
		},
		update: func(one *kong.Route) (*kong.Route, error) { return client.Routes.Update(ctx, one) },
		remove: func(key *string) error { return client.Routes.Delete(ctx, key) },
		id:     func(one *kong.Route) *string { return one.ID }, name: func(one *kong.Route) *string { return one.Name },
		change: func(one *kong.Route) { one.Paths = kong.StringSlice("/x") }, changed: func(one *kong.Route) bool { return *one.Paths[0] == "/x" },
	}, &kong.Route{Name: kong.String("r"), Paths: kong.StringSlice("/r")})

	consumer := drive("consumers", crud[kong.Consumer]{
		create: func(one *kong.Consumer) (*kong.Consumer, error) { return client.Consumers.Create(ctx, one) },
		get:    func(key *string) (*kong.Consumer, error) { return client.Consumers.Get(ctx, key) },
		list:   func() ([]*kong.Consumer, error) { return client.Consumers.ListAll(ctx) },
		update: func(one *kong.Consumer) (*kong.Consumer, error) { return client.Consumers.Update(ctx, one) },
		remove: func(key *string) error { return client.Consumers.Delete(ctx, key) },
		id:     func(one *kong.Consumer) *string { return one.ID }, name: func(one *kong.Consumer) *string { return one.Username },
		change: func(one *kong.Consumer) { one.Tags = kong.StringSlice("vip") }, changed: func(one *kong.Consumer) bool { return *one.Tags[0] == "vip" },
	}, &kong.Consumer{Username: kong.String("ada"), CustomID: kong.String("c-1")})
	byCustomID, err := client.Consumers.GetByCustomID(ctx, kong.String("c-1"))
	check("consumers get by custom id", err)
	expect("consumers get by custom id: the same", *byCustomID.ID == *consumer.ID)

	credentials(client, consumer.ID)
	balancer(client)
	certificates(client, certificate, key)
	keys(client)
	groups(client, consumer)
	plugins(client, service, route, consumer)

	drive("vaults", crud[kong.Vault]{
		create: func(one *kong.Vault) (*kong.Vault, error) { return client.Vaults.Create(ctx, one) },
		get:    func(key *string) (*kong.Vault, error) { return client.Vaults.Get(ctx, key) },
		list:   func() ([]*kong.Vault, error) { return client.Vaults.ListAll(ctx) },
		update: func(one *kong.Vault) (*kong.Vault, error) { return client.Vaults.Update(ctx, one) },
		remove: func(key *string) error { return client.Vaults.Delete(ctx, key) },
		id:     func(one *kong.Vault) *string { return one.ID }, name: func(one *kong.Vault) *string { return one.Prefix },
		change: func(one *kong.Vault) { one.Description = kong.String("d") }, changed: func(one *kong.Vault) bool { return *one.Description == "d" },
	}, &kong.Vault{Name: kong.String("env"), Prefix: kong.String("my-env"), Config: kong.Configuration{"prefix": "MY_"}})

	drive("workspaces", crud[kong.Workspace]{
		create: func(one *kong.Workspace) (*kong.Workspace, error) { return client.Workspaces.Create(ctx, one) },
		get:    func(key *string) (*kong.Workspace, error) { return client.Workspaces.Get(ctx, key) },
		list:   func() ([]*kong.Workspace, error) { return client.Workspaces.ListAll(ctx) },
		update: func(one *kong.Workspace) (*kong.Workspace, error) { return client.Workspaces.Update(ctx, one) },
		remove: func(key *string) error { return client.Workspaces.Delete(ctx, key) },
		id:     func(one *kong.Workspace) *string { return one.ID }, name: func(one *kong.Workspace) *string { return one.Name },
		change: func(one *kong.Workspace) { one.Comment = kong.String("c") }, changed: func(one *kong.Workspace) bool { return *one.Comment == "c" },
	}, &kong.Workspace{Name: kong.String("team")})
	for name, there := range map[string]bool{"team": true, "nobody": false} {
		found, err := client.Workspaces.ExistsByName(ctx, kong.String(name))
		check("workspaces exist by name", err)
		expect("workspaces exist by name: "+name, found == there)
	}
	client.SetWorkspace("team")
	inside, err := client.Info.Get(ctx)
	check("info in a workspace", err)
	expect("info in a workspace: version", inside.Version == info.Version)
	_, err = client.Consumers.Create(ctx, &kong.Consumer{Username: kong.String("eve")})
	check("consumers create in a workspace", err)
	there, err := client.Consumers.ListAll(ctx)
	check("consumers list in a workspace", err)
	expect("consumers list in a workspace: one", len(there) == 1)
	check("consumers delete in a workspace", client.Consumers.Delete(ctx, there[0].ID))
	client.SetWorkspace("")

	tagged, err := client.Tags.Exists(ctx)
	check("tags", err)
	expect("tags exist", tagged)
	slices.Reverse(leftovers)
	for _, remove := range leftovers {
		remove()
	}
	fmt.Println("done")
}

func credentials(client *kong.Client, consumer *string) {
	drive("key-auth", crud[kong.KeyAuth]{
		create: func(one *kong.KeyAuth) (*kong.KeyAuth, error) { return client.KeyAuths.Create(ctx, consumer, one) },
		get:    func(key *string) (*kong.KeyAuth, error) { return client.KeyAuths.Get(ctx, consumer, key) },
		list: func() ([]*kong.KeyAuth, error) {
			all, _, err := client.KeyAuths.ListForConsumer(ctx, consumer, nil)
			return all, err
		},
		update: func(one *kong.KeyAuth) (*kong.KeyAuth, error) { return client.KeyAuths.Update(ctx, consumer, one) },
		remove: func(key *string) error { return client.KeyAuths.Delete(ctx, consumer, key) },
		id:     func(one *kong.KeyAuth) *string { return one.ID }, name: func(one *kong.KeyAuth) *string { return one.Key },
		change: func(one *kong.KeyAuth) { one.Key = kong.String("another") }, changed: func(one *kong.KeyAuth) bool { return *one.Key == "another" },
	}, &kong.KeyAuth{})
	drive("basic-auth", crud[kong.BasicAuth]{
		create: func(one *kong.BasicAuth) (*kong.BasicAuth, error) {
			return client.BasicAuths.Create(ctx, consumer, one)
		},
		get:  func(key *string) (*kong.BasicAuth, error) { return client.BasicAuths.Get(ctx, consumer, key) },
		list: func() ([]*kong.BasicAuth, error) { return client.BasicAuths.ListAll(ctx) },
		update: func(one *kong.BasicAuth) (*kong.BasicAuth, error) {
			return client.BasicAuths.Update(ctx, consumer, one)
		},
		remove: func(key *string) error { return client.BasicAuths.Delete(ctx, consumer, key) },
		id:     func(one *kong.BasicAuth) *string { return one.ID }, name: func(one *kong.BasicAuth) *string { return one.Username },
		change: func(one *kong.BasicAuth) { one.Username = kong.String("b") }, changed: func(one *kong.BasicAuth) bool { return *one.Username == "b" && *one.Password != "s3cret" },
	}, &kong.BasicAuth{Username: kong.String("a"), Password: kong.String("s3cret")})
	drive("hmac-auth", crud[kong.HMACAuth]{
		create: func(one *kong.HMACAuth) (*kong.HMACAuth, error) { return client.HMACAuths.Create(ctx, consumer, one) },
		get:    func(key *string) (*kong.HMACAuth, error) { return client.HMACAuths.Get(ctx, consumer, key) },
		list:   func() ([]*kong.HMACAuth, error) { return client.HMACAuths.ListAll(ctx) },
		update: func(one *kong.HMACAuth) (*kong.HMACAuth, error) { return client.HMACAuths.Update(ctx, consumer, one) },
		remove: func(key *string) error { return client.HMACAuths.Delete(ctx, consumer, key) },
		id:     func(one *kong.HMACAuth) *string { return one.ID }, name: func(one *kong.HMACAuth) *string { return one.Username },
		change: func(one *kong.HMACAuth) { one.Secret = kong.String("t") }, changed: func(one *kong.HMACAuth) bool { return *one.Secret == "t" },
	}, &kong.HMACAuth{Username: kong.String("h")})
	drive("jwt", crud[kong.JWTAuth]{
		create: func(one *kong.JWTAuth) (*kong.JWTAuth, error) { return client.JWTAuths.Create(ctx, consumer, one) },
		get:    func(key *string) (*kong.JWTAuth, error) { return client.JWTAuths.Get(ctx, consumer, key) },
		list:   func() ([]*kong.JWTAuth, error) { return client.JWTAuths.ListAll(ctx) },
		update: func(one *kong.JWTAuth) (*kong.JWTAuth, error) { return client.JWTAuths.Update(ctx, consumer, one) },
		remove: func(key *string) error { return client.JWTAuths.Delete(ctx, consumer, key) },
		id:     func(one *kong.JWTAuth) *string { return one.ID }, name: func(one *kong.JWTAuth) *string { return one.Key },
		change: func(one *kong.JWTAuth) { one.Secret = kong.String("t") }, changed: func(one *kong.JWTAuth) bool { return *one.Secret == "t" },
	}, &kong.JWTAuth{})
	drive("acls", crud[kong.ACLGroup]{
		create: func(one *kong.ACLGroup) (*kong.ACLGroup, error) { return client.ACLs.Create(ctx, consumer, one) },
		get:    func(key *string) (*kong.ACLGroup, error) { return client.ACLs.Get(ctx, consumer, key) },
		list:   func() ([]*kong.ACLGroup, error) { return client.ACLs.ListAll(ctx) },
		update: func(one *kong.ACLGroup) (*kong.ACLGroup, error) { return client.ACLs.Update(ctx, consumer, one) },
		remove: func(key *string) error { return client.ACLs.Delete(ctx, consumer, key) },
		id:     func(one *kong.ACLGroup) *string { return one.ID }, name: func(one *kong.ACLGroup) *string { return one.Group },
		change: func(one *kong.ACLGroup) { one.Group = kong.String("staff") }, changed: func(one *kong.ACLGroup) bool { return *one.Group == "staff" },
	}, &kong.ACLGroup{Group: kong.String("admins")})
	drive("oauth2", crud[kong.Oauth2Credential]{
		create: func(one *kong.Oauth2Credential) (*kong.Oauth2Credential, error) {
			return client.Oauth2Credentials.Create(ctx, consumer, one)
		},
		get: func(key *string) (*kong.Oauth2Credential, error) {
			return client.Oauth2Credentials.Get(ctx, consumer, key)
		},
		list: func() ([]*kong.Oauth2Credential, error) { return client.Oauth2Credentials.ListAll(ctx) },
		update: func(one *kong.Oauth2Credential) (*kong.Oauth2Credential, error) {
			return client.Oauth2Credentials.Update(ctx, consumer, one)
		},
		remove: func(key *string) error { return client.Oauth2Credentials.Delete(ctx, consumer, key) },
		id:     func(one *kong.Oauth2Credential) *string { return one.ID }, name: func(one *kong.Oauth2Credential) *string { return one.ClientID },
		change: func(one *kong.Oauth2Credential) { one.Name = kong.String("other") }, changed: func(one *kong.Oauth2Credential) bool { return *one.Name == "other" },
	}, &kong.Oauth2Credential{Name: kong.String("app")})
}

func balancer(client *kong.Client) {
	upstream := drive("upstreams", crud[kong.Upstream]{
		create: func(one *kong.Upstream) (*kong.Upstream, error) { return client.Upstreams.Create(ctx, one) },
		get:    func(key *string) (*kong.Upstream, error) { return client.Upstreams.Get(ctx, key) },
		list:   func() ([]*kong.Upstream, error) { return client.Upstreams.ListAll(ctx) },
		update: func(one *kong.Upstream) (*kong.Upstream, error) { return client.Upstreams.Update(ctx, one) },
		remove: func(key *string) error { return client.Upstreams.Delete(ctx, key) },
		id:     func(one *kong.Upstream) *string { return one.ID }, name: func(one *kong.Upstream) *string { return one.Name },
		change: func(one *kong.Upstream) { one.Slots = kong.Int(100) }, changed: func(one *kong.Upstream) bool { return *one.Slots == 100 },
	}, &kong.Upstream{Name: kong.String("u.example.com")})
	target, err := client.Targets.Create(ctx, upstream.ID, &kong.Target{Target: kong.String("10.0.0.1:80")})
	check("targets create", err)
	targets, err := client.Targets.ListAll(ctx, upstream.ID)
	check("targets list", err)
	expect("targets list: one", len(targets) == 1)
	check("targets mark unhealthy", client.Targets.MarkUnhealthy(ctx, upstream.ID, target))
	check("targets mark healthy", client.Targets.MarkHealthy(ctx, upstream.ID, target))
	health, err := client.UpstreamNodeHealth.ListAll(ctx, upstream.ID)
	check("upstreams health", err)
	expect("upstreams health: one", len(health) == 1)
	check("targets delete", client.Targets.Delete(ctx, upstream.ID, target.ID))
}

func certificates(client *kong.Client, certificate, key *string) {
	pair := drive("certificates", crud[kong.Certificate]{
		create: func(one *kong.Certificate) (*kong.Certificate, error) { return client.Certificates.Create(ctx, one) },
		get:    func(key *string) (*kong.Certificate, error) { return client.Certificates.Get(ctx, key) },
		list:   func() ([]*kong.Certificate, error) { return client.Certificates.ListAll(ctx) },
		update: func(one *kong.Certificate) (*kong.Certificate, error) { return client.Certificates.Update(ctx, one) },
		remove: func(key *string) error { return client.Certificates.Delete(ctx, key) },
		id:     func(one *kong.Certificate) *string { return one.ID },
		change: func(one *kong.Certificate) { one.Tags = kong.StringSlice("t") }, changed: func(one *kong.Certificate) bool { return *one.Tags[0] == "t" && len(one.SNIs) == 1 },
	}, &kong.Certificate{Cert: certificate, Key: key, SNIs: kong.StringSlice("a.example.com")})
	drive("snis", crud[kong.SNI]{
		create: func(one *kong.SNI) (*kong.SNI, error) { return client.SNIs.Create(ctx, one) },
		get:    func(key *string) (*kong.SNI, error) { return client.SNIs.Get(ctx, key) },
		list: func() ([]*kong.SNI, error) {
			all, _, err := client.SNIs.ListForCertificate(ctx, pair.ID, nil)
			return all, err
		},
		update: func(one *kong.SNI) (*kong.SNI, error) { return client.SNIs.Update(ctx, one) },
		remove: func(key *string) error { return client.SNIs.Delete(ctx, key) },
		id:     func(one *kong.SNI) *string { return one.ID }, name: func(one *kong.SNI) *string { return one.Name },
		change: func(one *kong.SNI) { one.Name = kong.String("c.example.com") }, changed: func(one *kong.SNI) bool { return *one.Name == "c.example.com" },
	}, &kong.SNI{Name: kong.String("b.example.com"), Certificate: &kong.Certificate{ID: pair.ID}})
	drive("ca_certificates", crud[kong.CACertificate]{
		create: func(one *kong.CACertificate) (*kong.CACertificate, error) {
			return client.CACertificates.Create(ctx, one)
		},
		get:    func(key *string) (*kong.CACertificate, error) { return client.CACertificates.Get(ctx, key) },
		list:   func() ([]*kong.CACertificate, error) { return client.CACertificates.ListAll(ctx) },
		remove: func(key *string) error { return client.CACertificates.Delete(ctx, key) },
		id:     func(one *kong.CACertificate) *string { return one.ID },
	}, &kong.CACertificate{Cert: read(os.Args[4])})
}

func keys(client *kong.Client) {
	set := drive("key-sets", crud[kong.KeySet]{
		create: func(one *kong.KeySet) (*kong.KeySet, error) { return client.KeySets.Create(ctx, one) },
		get:    func(key *string) (*kong.KeySet, error) { return client.KeySets.Get(ctx, key) },
		list:   func() ([]*kong.KeySet, error) { return client.KeySets.ListAll(ctx) },
		update: func(one *kong.KeySet) (*kong.KeySet, error) { return client.KeySets.Update(ctx, one) },
		remove: func(key *string) error { return client.KeySets.Delete(ctx, key) },
		id:     func(one *kong.KeySet) *string { return one.ID }, name: func(one *kong.KeySet) *string { return one.Name },
		change: func(one *kong.KeySet) { one.Tags = kong.StringSlice("t") }, changed: func(one *kong.KeySet) bool { return *one.Tags[0] == "t" },
	}, &kong.KeySet{Name: kong.String("set")})
	drive("keys", crud[kong.Key]{
		create: func(one *kong.Key) (*kong.Key, error) { return client.Keys.Create(ctx, one) },
		get:    func(key *string) (*kong.Key, error) { return client.Keys.Get(ctx, key) },
		list:   func() ([]*kong.Key, error) { return client.Keys.ListAll(ctx) },
		update: func(one *kong.Key) (*kong.Key, error) { return client.Keys.Update(ctx, one) },
		remove: func(key *string) error { return client.Keys.Delete(ctx, key) },
		id:     func(one *kong.Key) *string { return one.ID }, name: func(one *kong.Key) *string { return one.Name },
		change: func(one *kong.Key) { one.Tags = kong.StringSlice("t") }, changed: func(one *kong.Key) bool { return *one.Tags[0] == "t" },
	}, &kong.Key{Name: kong.String("key"), KID: kong.String("k"), Set: set, JWK: kong.String(`{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}`)})
}

func groups(client *kong.Client, consumer *kong.Consumer) {
	group, err := client.ConsumerGroups.Create(ctx, &kong.ConsumerGroup{Name: kong.String("gold")})
	check("consumer_groups create", err)
	_, err = client.ConsumerGroupConsumers.Create(ctx, group.Name, consumer.Username)
	check("consumer_groups add a consumer", err)
	whole, err := client.ConsumerGroups.Get(ctx, group.Name)
	check("consumer_groups get", err)
	expect("consumer_groups get: a consumer", len(whole.Consumers) == 1)
	members, err := client.ConsumerGroupConsumers.ListAll(ctx, group.ID)
	check("consumer_groups list consumers", err)
	expect("consumer_groups list consumers: one", len(members) == 1)
	all, err := client.ConsumerGroups.ListAll(ctx)
	check("consumer_groups list", err)
	expect("consumer_groups list: one", len(all) == 1)
	rates := map[string]kong.Configuration{"config": {"limit": []int{5}, "window_size": []int{60}}}
	limited, err := client.ConsumerGroups.UpdateRateLimitingAdvancedPlugin(ctx, group.Name, rates)
	check("consumer_groups set rates", err)
	expect("consumer_groups set rates: of the group", *limited.ConsumerGroup == "gold")
	check("consumer_groups remove a consumer", client.ConsumerGroupConsumers.Delete(ctx, group.ID, consumer.ID))
	check("consumer_groups delete", client.ConsumerGroups.Delete(ctx, group.ID))
}

func plugins(client *kong.Client, service *kong.Service, route *kong.Route, consumer *kong.Consumer) {
	drive("plugins", crud[kong.Plugin]{
		create: func(one *kong.Plugin) (*kong.Plugin, error) { return client.Plugins.Create(ctx, one) },
		get:    func(key *string) (*kong.Plugin, error) { return client.Plugins.Get(ctx, key) },
		list:   func() ([]*kong.Plugin, error) { return client.Plugins.ListAll(ctx) },
		update: func(one *kong.Plugin) (*kong.Plugin, error) { return client.Plugins.Update(ctx, one) },
		remove: func(key *string) error { return client.Plugins.Delete(ctx, key) },
		id:     func(one *kong.Plugin) *string { return one.ID }, name: func(one *kong.Plugin) *string { return one.InstanceName },
		change: func(one *kong.Plugin) { one.Enabled = kong.Bool(false) }, changed: func(one *kong.Plugin) bool { return !*one.Enabled },
	}, &kong.Plugin{Name: kong.String("cors"), InstanceName: kong.String("everywhere")})
	_, err := client.Plugins.CreateForService(ctx, service.ID, &kong.Plugin{Name: kong.String("key-auth")})
	check("plugins create for a service", err)
	_, err = client.Plugins.CreateForRoute(ctx, route.ID, &kong.Plugin{Name: kong.String("basic-auth")})
	check("plugins create for a route", err)
	_, err = client.Plugins.Create(ctx, &kong.Plugin{
		Name: kong.String("request-size-limiting"), Consumer: consumer, Route: route, Service: service,
	})
	check("plugins create for several", err)
	of, err := client.Plugins.ListAllForService(ctx, service.ID)
	check("plugins list for a service", err)
	expect("plugins list for a service: two", len(of) == 2)
	names, err := client.Plugins.GetFullSchema(ctx, kong.String("rate-limiting"))
	check("plugins schema", err)
	filled := &kong.Plugin{Name: kong.String("rate-limiting"), Config: kong.Configuration{"minute": 5}}
	check("plugins defaults", kong.FillPluginsDefaults(filled, names))
	expect("plugins defaults: policy", filled.Config["policy"] == "local")
	valid, message, err := client.Plugins.Validate(ctx, filled)
	check("plugins validate", err)
	expect("plugins validate "+message, valid)
}
