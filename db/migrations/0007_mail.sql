-- Of a change of address: the new one, which is the account's when the token comes back.
alter table belfry_mail_tokens add column email text;
