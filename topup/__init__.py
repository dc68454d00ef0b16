"""topup keeps a prepaid AI-API account funded from a crypto wallet, unattended.

Each module answers one question. In the order the money flows:

  — words: pure, import only what stands above them
  money.py        How much?
  errors.py       What can go wrong?
  document.py     What does this JSON say, if it is small, flat and plain enough to be read?
  events.py       What can the program say?

  — judgement: pure; no input or output, no clock, no settings
  credits.py      Can this reading of the account be believed, how fast is it burning, and has our payment been posted?
  policy.py       Should we buy, how much, and if not why?
  charge.py       Is this charge exactly what we asked for?
  lifecycle.py    What is the life of one top-up?
  ways.py         What ends each state of a top-up, and what may a person say of it?
  death.py        When is a charge dead for ever, so that another may be signed in its place?
  remedies.py     What would change that nothing is bought?
  leap.py         Has time gone by that this process did not live through?
  adoption.py     What does the chain show of this wallet that the ledger does not know, and what follows from it?
  books.py        What does each thing that happened mean in debits and credits?
  closing.py      What did account and wallet do that no top-up explains?
  statement.py    What happened to the money within a period?
  usage.py        What was used, on which day, by which model and key, and what is each label's share?
  compare.py      Where do the provider's account and the books differ?
  forecast.py     How long will the credits last, how long the wallet, and what would cost less?

  — flow
  ports.py        What does the flow need from the world?
  terms.py        What is a pass given, and what does it give back?
  budget.py       How much may one pass ask, and how long may its long work take?
  cycle.py        What happens in one pass?
  recall.py       When does an inclusion that was recorded no longer count?
  lasting.py      Since when can an open top-up not get on, and has it been said?
  watch.py        What does the account show, and can it be believed?
  witness.py      What has the chain shown of what we sent, and what follows for the ledger?
  steps.py        What do all steps of a top-up share?
  bookkeeping.py  What is entered in the books while no top-up is open?
  tally.py        Which days of usage does the provider tell that the ledger does not hold?
  revoke.py       Does an approval outlive its charge, and how is it taken back?
  foreign.py      Has somebody else used a nonce of ours, and can what we sent there never be mined?
  purchase.py     What is the next step of a top-up?
  pursuit.py      What is the next step of a payment that may be out?
  arrival.py      Has what was paid for arrived?

  — edges: each knows one foreign thing; none imports another
  typed.py        What is signed when dollars are sent by authorization, or when a wallet logs in?
  tempo.py        What is signed when dollars are sent on Tempo?
  wire/           What is let in of what others say?
    http.py       What comes back when somebody is asked over HTTP?
    egress.py     How does a question leave this machine?
    unpack.py     What do packed bytes hold, as far as they may unpack?
    reading.py    What becomes of an error that others' words have caused while they were read?
    clean.py      What may others' words become where we say them?
    secrets.py    Which words must not be said?
  verbatim.py     How does JSON pass through us as it was written?
  files.py        What does a file say that the settings name, and who else can read it?
  exchange.py     What comes back when a seller is asked over HTTP?
  x402_profile.py How is one seller for x402 asked, and where does it tell the balance?
  clock.py        What time is it?
  openrouter.py   What does the credits API say?
  prepaid.py      What does a gateway that sells for x402 say of its account?
  rails/          How do dollars become something payable?
    heard.py      What becomes of a seller's answer that cannot be read?
    coinbase.py   How is a Coinbase charge bought, proven and paid?
    authorized.py What do rails share whose sellers carry the payment to the chain?
    mpp.py        How are credits bought by machine payment?
    mpp_choice.py Which of a seller's challenges is paid?
    mpp_fields.py How is a seller of the Payment scheme asked, and where do things stand in its answers?
    mpp_wire.py   What does a 402 of the Payment scheme demand, and how is it answered?
    x402.py       How are credits bought for a signed transfer of dollars?
    x402_choice.py Which of a seller's offers is paid?
    x402_wire.py  What does a 402 of x402 demand, and how is it answered?
  chain/          What does the chain say?
    profiles.py   Which contracts does a chain hold?
    owners.py     Whose is a provider?
    refusals.py   What does a provider's error say of the question?
    capabilities.py What can this provider do?
    batches.py    How do questions reach a provider that takes few at once, asks for patience, or is a pool of nodes?
    rpc.py        How is a provider asked?
    fees.py       What does a transaction pay per gas, where a provider does not say it?
    providers.py  Which providers can be believed now?
    agreement.py  What do several providers say together?
    quorum.py     How many providers have to say it?
    contracts.py  How are the contracts spoken to?
    reverts.py    What does this revert mean?
    survey.py     What is a payment planned on?
    simulation.py What would this payment do?
    broadcast.py  How do signed bytes leave?
    submission.py How does a new payment leave?
    evidence.py   What became of a payment?
    history.py    What has this wallet done?
    paging.py     How are logs read that a provider does not hand out at once?
    scan.py       Who was paid between two blocks?
    search.py     How far was a payment looked for, and which transactions carry it?
    fate.py       Was this charge ever paid?
    holdings.py   What does a wallet hold at a final block?
    control.py    Does a provider show the logs of a time, or only its blocks?
    traces.py     What became of an authorization that somebody else carries to the chain?
    keychain.py   What may an access key still spend?
    token.py      How does a chain answer for payments that somebody else carries there?
    evm.py        How does an EVM chain answer the `Chain` port?
  signers/        Who signs?
    late.py       When is the key opened?
    local.py      Is this the one thing this key may sign?
    keystore.py   What does a keystore hold?
    root.py       What may an account's root key sign?
  store/          Where is the ledger?
    schema.py     What does the ledger remember?
    file.py       What keeps the ledger's file whole?
    place.py      Is the ledger's place still its own?
    rows.py       How does a row become a record, and a record a row?
    caps.py       What counts against the caps?
    journal.py    How is the journal kept?
    usage.py      How is usage by model and by key kept?
    writer.py     Who may write to the ledger?
    words.py      What have people told the ledger?
    wishes.py     What has been wished for, and what became of it?
    readings.py   What has the account shown?
    topups.py     What is stored of the life of a top-up?
    pieces.py     How far was a payment looked for?
    adopted.py    What was found on the chain and taken over?
    sqlite.py     What does SQLite need to know?
  sinks/          Where do events go?
    log.py        How is an event written?

  — outside: settings become ports, commands become exit codes
  variables.py    Which variables of the environment are settings?
  settings.py     What did the owner say?
  exposure.py     Who else can read what must stay secret?
  assemble.py     How do settings become a running cycle?
  signals.py      What do signals do that come while a command is still being loaded, or while it makes up its mind?
  output.py       How does a result reach whoever asked, and what if nobody takes it?
  once.py         How is one wish bought once?
  daemon.py       When does the next pass run, and how does the program stop?
  check.py        What would be done now?
  pinning.py      Who would be paid?
  reconcile.py    Does the ledger know everything this wallet did, and how is it told what it does not know?
  limit.py        What may the wallet's access key spend, and how does the account's owner change it?
  doctor/         Is everything in place?
    finding.py    What was looked at, is it as it should be, and what is to be done where it is not?
    machine.py    What does this machine hold: the ledger's directory, the ledger, the key files?
    account.py    What does the API say: does it answer, by which key, what credits, and how late it is?
    wallet.py     Who pays, who may be paid, and does the chain of each rail in use stand?
    providers.py  What can each provider do, and what follows from what it cannot?
    contract.py   Can a Coinbase charge be paid: do contract, prices, fees and wallet stand as a payment needs them?
    carried.py    Can dollars be paid on the chain to which a seller carries what was signed?
  x402_look.py    What can be seen of an x402 seller and the wallet that pays it, before anything is signed?
  offers.py       What does a seller demand, before anything is paid?
  report.py       What does the ledger say?
  outlook.py      How does a forecast read?
  period.py       What does the ledger hold of a period?
  bill.py         Who used what, and what is each one's share of what it has cost?
  statements/     How is a statement written, and for whom?
    text.py       How does a statement read for a person, and for a program as JSON?
    table.py      How does the journal become CSV that a spreadsheet reads, and comes back from it unchanged?
    ledgers.py    How does a statement become a file for Beancount or hledger?
    tax.py        How do the wallet's movements become rows that Koinly or rotki imports?
    usage.py      How does usage by day, model, key or label read, and what does each one's share cost?
    page.py       How does a statement look?
  dossier.py      What was the whole life of one top-up, and what does the provider's support have to know of it?
  cli.py          Which commands are there?
  __main__.py     Run topup as `python -m topup`.
  sandbox/        What is a whole world, small enough for one process?
    world.py      How do chain, provider and clock make one world?
    evm.py        How does a chain fit into one process?
    contracts/    What stands on the chain of the embedded world, at which address, and which slot changes what?
    anvil.py      How does the sandbox run on anvil instead?
    rpc.py        How does a chain of the sandbox speak JSON-RPC?
    tempo.py      How does the sandbox run a Tempo chain?
    gateway.py    How would OpenRouter answer, if it still sold credits for crypto?
    seller.py     What do sellers share that carry payments to the chain?
    seller_faults.py What can every seller do wrong that carries payments to the chain?
    purchases.py  How would OpenRouter sell credits for a machine payment?
    purchase_wire.py What does OpenRouter's endpoint for purchases take, and what does it answer?
    mpp_wire.py   How is a challenge of the Payment scheme sealed and written, and a credential read?
    mpp_faults.py What can a seller for machine payments do wrong, in a sentence each, and what must come of it?
    sponsor.py    How does a seller complete a payment whose network fee it pays, and what does it insist on?
    tempo_transfer.py What does a transaction on Tempo pay, is that what was asked for, and does its receipt show it?
    x402.py       How would a gateway sell credits for a signed transfer of dollars?
    x402_plain.py How does a seller for x402 behave whose ways are a record?
    x402_login.py Is this login good?
    x402_seller.py What do sellers for x402 share?
    x402_faults.py What can a seller for x402 do wrong, in a sentence each, and what must come of it?
    facilitator.py Who carries an authorization of dollars to the chain, and what is made sure of before?
    charges.py    What does a charge look like when it is signed honestly, and when its signer means harm?
    usage.py      Which models and keys does the usage of the sandbox's account fall on?
    postings.py   Which payments on the chain earn credits?
    faults.py     What can be switched wrong in the embedded world, in a sentence each, and what must come of it?
    wire.py       In which ways can an HTTP answer go wrong before its content matters?
    http.py       How does the embedded world listen?
  days.py         What do the books look like after the daemon has run for days?
  rehearsal.py    What happens when the real daemon runs in the embedded world?

Imports run downward only, from outside to words. docs/architecture.md says why, tests/test_map.py keeps this map true.
"""

__version__ = "0.1.0"
